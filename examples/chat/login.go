package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/oneport-edge/oneport/router/auth"
)

const (
	issuer     = "chat"
	cookieName = "__Host-chat" // browsers take it from this host alone, by https, for all paths
	keepName   = 12 * time.Hour
)

// newTokens gives what makes tokens, and the guard that reads them: in the Authorization field
// from programs, in a cookie from the page. A cookie counts only in requests of this host's own pages.
func newTokens(key crypto.Signer) (*auth.Mint, *auth.JWT, error) {
	mint, err := auth.NewMint(key, "")
	if err != nil {
		return nil, nil, err
	}
	keys, err := auth.NewKeySet(mint.Key())
	if err != nil {
		return nil, nil, err
	}
	tokens, err := auth.NewJWT(auth.JWTOptions{
		Issuer: issuer, Audience: []string{issuer}, Keys: keys,
		From: []auth.Source{auth.SourceHeader(), auth.SourceCookie(cookieName)},
	})
	return mint, tokens, err
}

// loadKey reads the key, or makes it. Of several instances that start at once one makes it.
func loadKey(path string) (crypto.Signer, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeKey(path); err != nil {
			return nil, err
		}
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, err
	}
	key, err := auth.ParsePrivateKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

func makeKey(path string) error {
	key, err := auth.GenerateKey("EdDSA")
	if err != nil {
		return err
	}
	text, err := auth.MarshalPrivateKey(key)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".chat.key-") // for this user alone
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// sign makes a token for a name. There are no passwords here: whoever has some looks at them
// before this.
func (a *app) sign(name string) (string, error) {
	name, err := vet("name", name, mostName)
	if err != nil {
		return "", err
	}
	now := time.Now()
	return a.mint.Sign(map[string]any{
		"iss": issuer, "aud": issuer, "sub": name, "iat": now.Unix(), "exp": now.Add(keepName).Unix(),
	})
}

// login gives the page's cookie, which no script can read.
func (a *app) login(c *gin.Context) {
	var in struct{ Name string }
	if !readJSON(c, &in) {
		return
	}
	token, err := a.sign(in.Name)
	if err != nil {
		c.JSON(statusOf(err), gin.H{"error": words(err)})
		return
	}
	setCookie(c, token, int(keepName/time.Second))
}

func (a *app) logout(c *gin.Context) { setCookie(c, "", -1) }

func setCookie(c *gin.Context, token string, maxAge int) {
	http.SetCookie(c.Writer, &http.Cookie{
		Name: cookieName, Value: token, Path: "/", MaxAge: maxAge,
		Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
	c.Status(http.StatusNoContent)
}

// token gives a program its token, as text.
func (a *app) token(c *gin.Context) {
	var in struct{ Name string }
	if !readJSON(c, &in) {
		return
	}
	token, err := a.sign(in.Name)
	if err != nil {
		c.JSON(statusOf(err), gin.H{"error": words(err)})
		return
	}
	c.String(http.StatusOK, token)
}

// nameOf is who the page's cookie is for; "" if nobody is known.
func (a *app) nameOf(ctx context.Context, r *http.Request) string {
	cookie, err := r.Cookie(cookieName)
	if err != nil {
		return ""
	}
	id, err := a.tokens.Check(ctx, cookie.Value)
	if err != nil {
		return ""
	}
	return id.Subject
}

// session tells the page whether its cookie still holds: why a WebSocket was refused no
// browser tells.
func (a *app) session(c *gin.Context) {
	c.JSON(http.StatusOK, gin.H{"name": a.nameOf(c.Request.Context(), c.Request)})
}
