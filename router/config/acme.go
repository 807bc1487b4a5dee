package config

import (
	"net/netip"
	"net/url"
	"strings"
)

// acme reads how to have certificates of a CA.
func (w *walker) acme(v value) *ACME {
	if !v.given() {
		return nil
	}
	o := v.object("tls.acme")
	if !o.get("domains").given() {
		o.missing("domains", "say which host names get certificates")
	}
	a := &ACME{
		Pos:     v.pos(),
		Domains: w.domains(o.get("domains")),
		Email:   w.email(o.get("email")),
		CA:      w.directory(o.get("ca")),
		CARoots: o.get("ca_roots").file(),
		Storage: o.get("storage").file(),
	}
	for _, item := range w.some(o.get("challenges"), "an empty list leaves the CA no way") {
		a.Challenges = append(a.Challenges, item.word())
	}
	if e := o.get("external_account"); e.given() {
		account := e.object("tls.acme.external_account")
		for _, key := range []string{"key_id", "mac_key_file"} {
			if !account.get(key).given() {
				account.missing(key, "an account is a name and a key, key_id and mac_key_file")
			}
		}
		a.KeyID, a.MACKeyFile = account.get("key_id").text(), account.get("mac_key_file").file()
	}
	return a
}

// some gives the items of a list that must not be empty.
func (w *walker) some(v value, why string) []value {
	if !v.given() {
		return nil
	}
	items := v.items()
	if items != nil && len(items) == 0 {
		v.problemf("%s", why)
	}
	return items
}

func (w *walker) domains(v value) (list []string) {
	first := make(map[string]int)
	for _, item := range w.some(v, "an empty list gives no certificate") {
		s := item.text()
		_, notAddress := netip.ParseAddr(strings.Trim(s, "[]"))
		switch {
		case s == "":
			continue
		case strings.Contains(s, "*"):
			item.problemf("a wildcard needs the DNS challenge, which oneport does not speak; give its names, or certificates")
		case notAddress == nil || !domainShape.MatchString(s):
			item.problemf("want a host name, as example.com (in ASCII: xn--...), have %s", shown(s))
		case first[strings.ToLower(s)] > 0:
			item.problemf("%s is in line %d already", shown(s), first[strings.ToLower(s)])
		}
		first[strings.ToLower(s)] = item.pos().Line
		list = append(list, strings.ToLower(s))
	}
	return list
}

func (w *walker) email(v value) string {
	s := v.text()
	if s != "" && !emailShape.MatchString(s) {
		v.problemf("want an address, as ops@example.com, have %s", shown(s))
	}
	return strings.TrimPrefix(s, "mailto:")
}

// directory reads the URL of a CA.
func (w *walker) directory(v value) string {
	s := v.text()
	if s == "" {
		return v.otherwise()
	}
	if u, err := url.Parse(s); err != nil || !directoryShape.MatchString(s) || u.Host == "" {
		v.problemf("want the URL of the CA's directory, with https, have %s", shown(s))
	}
	return s
}
