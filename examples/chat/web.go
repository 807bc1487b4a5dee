package main

import (
	"bytes"
	"embed"
	"errors"
	"html/template"
	"net/http"
	"slices"

	"github.com/gin-gonic/gin"
)

// pages is the page and what it loads.
//
//go:embed page
var pages embed.FS

// pagePolicy lets the page load its own script and style, and talk to the port
// that served it.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// newWeb gives the page, who one is, and the rooms by REST.
func newWeb(a *app) (*gin.Engine, error) {
	page, err := template.ParseFS(pages, "page/index.html")
	if err != nil {
		return nil, err
	}
	web := gin.New()
	web.GET("/", func(c *gin.Context) { c.Redirect(http.StatusSeeOther, "/room/lobby") })
	web.GET("/room/:room", func(c *gin.Context) { a.page(c, page) })
	for path, file := range map[string]string{
		"/chat.js": "page/chat.js", "/centrifuge.js": "page/centrifuge.js", "/chat.css": "page/chat.css",
	} {
		web.GET(path, func(c *gin.Context) {
			pageHeader(c)
			c.FileFromFS(file, http.FS(pages))
		})
	}

	own := sameOrigin()
	web.GET("/api/session", a.session)
	web.POST("/api/login", own, a.login)
	web.POST("/api/logout", own, a.logout)
	web.POST("/api/token", own, a.token)

	// The gate has let nobody come here who is not known.
	web.GET("/api/rooms/:room/messages", inRoom(func(c *gin.Context, channel string) (any, error) {
		list, _, err := a.rooms().last(c.Request.Context(), channel)
		return gin.H{"messages": list}, err
	}))
	web.GET("/api/rooms/:room/people", inRoom(func(c *gin.Context, channel string) (any, error) {
		names, err := a.rooms().people(c.Request.Context(), channel)
		return gin.H{"people": names}, err
	}))
	web.POST("/api/rooms/:room/messages", a.post)
	return web, nil
}

func (a *app) rooms() rooms { return rooms{a.hub} }

func pageHeader(c *gin.Context) {
	c.Header("Content-Security-Policy", pagePolicy)
	c.Header("X-Content-Type-Options", "nosniff")
	c.Header("Referrer-Policy", "no-referrer")
	c.Header("Cache-Control", "no-cache")
}

// view is what the page's template is filled with.
type view struct {
	Host  string
	Room  string
	Rooms []string
	Name  string // "" is for somebody who has not said it
}

func (a *app) page(c *gin.Context, page *template.Template) {
	room := c.Param("room")
	if _, err := channelOf(room); err != nil {
		c.String(http.StatusNotFound, "%v", err)
		return
	}
	v := view{Host: c.Request.Host, Room: room, Rooms: []string{"lobby", "kitchen", "workshop"}, Name: a.nameOf(c.Request.Context(), c.Request)}
	if !slices.Contains(v.Rooms, room) {
		v.Rooms = append(v.Rooms, room)
	}
	var b bytes.Buffer
	if err := page.Execute(&b, v); err != nil {
		_ = c.AbortWithError(http.StatusInternalServerError, err)
		return
	}
	pageHeader(c)
	c.Header("Cache-Control", "no-store") // it has a name in it
	c.Data(http.StatusOK, "text/html; charset=utf-8", b.Bytes())
}

// sameOrigin refuses what pages of other hosts make a browser send.
func sameOrigin() gin.HandlerFunc {
	protection := http.NewCrossOriginProtection()
	return func(c *gin.Context) {
		if err := protection.Check(c.Request); err != nil {
			c.AbortWithStatusJSON(http.StatusForbidden, gin.H{"error": err.Error()})
		}
	}
}

// inRoom answers what f finds out of a room's channel.
func inRoom(f func(c *gin.Context, channel string) (any, error)) gin.HandlerFunc {
	return func(c *gin.Context) {
		channel, err := channelOf(c.Param("room"))
		if err == nil {
			var answer any
			if answer, err = f(c, channel); err == nil {
				c.JSON(http.StatusOK, answer)
				return
			}
		}
		c.JSON(statusOf(err), gin.H{"error": words(err)})
	}
}

func (a *app) post(c *gin.Context) {
	var in struct{ Text string }
	if !readJSON(c, &in) {
		return
	}
	m, err := a.rooms().say(c.Request.Context(), c.Param("room"), in.Text)
	if err != nil {
		c.JSON(statusOf(err), gin.H{"error": words(err)})
		return
	}
	c.JSON(http.StatusCreated, m)
}

// readJSON reads a request's body, or answers what is wrong with it.
func readJSON(c *gin.Context, into any) bool {
	// Any page on the Web can make a browser send a form or plain text, but
	// JSON only to who allows it: others cannot speak in a visitor's name.
	if c.ContentType() != gin.MIMEJSON {
		c.JSON(http.StatusUnsupportedMediaType, gin.H{"error": "the body must be application/json"})
		return false
	}
	c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, mostMessage)
	if err := c.ShouldBindJSON(into); err != nil {
		status := http.StatusBadRequest
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			status = http.StatusRequestEntityTooLarge
		}
		c.JSON(status, gin.H{"error": err.Error()})
		return false
	}
	return true
}
