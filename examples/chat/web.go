package main

import (
	"embed"
	"errors"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/oneport-edge/oneport/protocols"
)

// pages is the page and what it loads.
//
//go:embed page
var pages embed.FS

// pagePolicy lets the page load its own script and style, and talk to the port
// that served it.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// newWeb gives the room by REST, and its page.
func newWeb(r *room) *gin.Engine {
	web := gin.New()
	web.GET("/api/messages", func(c *gin.Context) { c.JSON(http.StatusOK, gin.H{"messages": r.said()}) })
	web.POST("/api/messages", func(c *gin.Context) { post(c, r) })
	for path, file := range map[string]string{"/": "page/", "/chat.js": "page/chat.js", "/chat.css": "page/chat.css"} {
		web.GET(path, func(c *gin.Context) {
			c.Header("Content-Security-Policy", pagePolicy)
			c.Header("X-Content-Type-Options", "nosniff")
			c.Header("Referrer-Policy", "no-referrer")
			c.Header("Cache-Control", "no-cache")
			c.FileFromFS(file, http.FS(pages))
		})
	}
	return web
}

func post(c *gin.Context, r *room) {
	// Any page on the Web can make a browser send a form or plain text, but
	// JSON only to who allows it: others cannot speak in a visitor's name.
	if c.ContentType() != gin.MIMEJSON {
		c.JSON(http.StatusUnsupportedMediaType, gin.H{"error": "the body must be application/json"})
		return
	}
	c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, mostRequest)
	var in struct{ Name, Text string }
	if err := c.ShouldBindJSON(&in); err != nil {
		status := http.StatusBadRequest
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			status = http.StatusRequestEntityTooLarge
		}
		c.JSON(status, gin.H{"error": err.Error()})
		return
	}
	m, err := r.say(in.Name, in.Text, protocols.CallFrom(c.Request.Context()).Protocol.String())
	if err != nil {
		c.JSON(http.StatusBadRequest, gin.H{"error": err.Error()})
		return
	}
	c.JSON(http.StatusCreated, m)
}
