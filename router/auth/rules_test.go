package auth_test

import (
	"encoding/json"
	"testing"

	"github.com/oneport-edge/oneport/protocols"
	"github.com/oneport-edge/oneport/router/auth"
)

func TestRequire(t *testing.T) {
	var claims map[string]any
	if err := json.Unmarshal([]byte(`{
		"role": "admin", "level": 3, "big": 12345678901234, "half": 0.5, "on": true, "nothing": null,
		"roles": ["reader", "writer", 7, ["nested"]], "scope": "read write", "scp": "one two",
		"realm_access": {"roles": ["deep"], "scope": "a b"}, "text": "a b",
		"https://example.com/roles": ["dotted"], "https://example.com/more": {"x": "y"}
	}`), &claims); err != nil {
		t.Fatal(err)
	}
	claims["list"], claims["number"] = []string{"own"}, json.Number("42")
	who := &protocols.Identity{Subject: "alice", Issuer: "https://id.example.com", Claims: claims}
	claim := func(path string, values ...string) *auth.Require {
		return &auth.Require{Claims: map[string][]string{path: values}}
	}
	for name, tc := range map[string]struct {
		rule *auth.Require
		ok   bool
	}{
		"nothing asked":           {&auth.Require{}, true},
		"subject":                 {&auth.Require{Subjects: []string{"bob", "alice"}}, true},
		"other subject":           {&auth.Require{Subjects: []string{"bob", "Alice"}}, false},
		"issuer":                  {&auth.Require{Issuers: []string{"https://id.example.com"}}, true},
		"other issuer":            {&auth.Require{Issuers: []string{""}, Subjects: []string{"alice"}}, false},
		"string":                  {claim("role", "x", "admin"), true},
		"part of a string":        {claim("role", "adm"), false},
		"number":                  {claim("level", "3"), true},
		"big number":              {claim("big", "12345678901234"), true},
		"fraction":                {claim("half", "0.5"), true},
		"number of json":          {claim("number", "42"), true},
		"bool":                    {claim("on", "true"), true},
		"wrong bool":              {claim("on", "false"), false},
		"null":                    {claim("nothing", "null", ""), false},
		"array":                   {claim("roles", "writer"), true},
		"number in an array":      {claim("roles", "7"), true},
		"array within an array":   {claim("roles", "nested"), false},
		"list of strings":         {claim("list", "own"), true},
		"scope":                   {claim("scope", "write"), true},
		"whole scope":             {claim("scope", "read write"), false},
		"empty scope":             {claim("scope", ""), false},
		"scp":                     {claim("scp", "two"), true},
		"nested scope":            {claim("realm_access.scope", "b"), true},
		"text is not split":       {claim("text", "a"), false},
		"within":                  {claim("realm_access.roles", "deep"), true},
		"not within":              {claim("realm_access.role", "deep"), false},
		"not an object":           {claim("role.x", "admin"), false},
		"an object":               {claim("realm_access", "roles"), false},
		"a name with dots":        {claim("https://example.com/roles", "dotted"), true},
		"within a name with dots": {claim("https://example.com/more.x", "y"), true},
		"missing":                 {claim("missing", "x"), false},
		"no values":               {claim("role"), false},
		"empty path":              {claim("", ""), false},
		"one of two claims":       {&auth.Require{Claims: map[string][]string{"role": {"admin"}, "on": {"false"}}}, false},
		"two claims":              {&auth.Require{Claims: map[string][]string{"role": {"admin"}, "on": {"true"}}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			call := newCall(t, protocols.HTTP, "/")
			wantRefusal(t, askGuard(t, tc.rule, call), protocols.ReasonUnauthenticated)
			call.Identify(who)
			if err := askGuard(t, tc.rule, call); tc.ok && err != nil {
				t.Error(err)
			} else if !tc.ok {
				wantRefusal(t, err, protocols.ReasonForbidden)
			}
			c := tc.rule.Counts()
			if c.Unknown != 1 || c.Admitted+c.Subject+c.Issuer+c.Claim != 1 || (c.Admitted == 1) != tc.ok {
				t.Errorf("counts %+v", c)
			}
		})
	}
}
