package edge

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/oneport-edge/oneport/proto/oneport/admin/v1"
	"github.com/oneport-edge/oneport/router/config"
)

// What stands for secrets, and the key of guards that must all let a call in.
const (
	redacted = "redacted"
	everyOne = "all"
)

// shown is the configuration in effect, without secrets.
func (e *Edge) shown() (*adminv1.GetConfigResponse, error) {
	cfg := e.seen.Load().cfg
	r := redaction{env: cfg.FromEnv()}
	fields, _ := r.value("", reflect.ValueOf(*cfg)).(map[string]any)
	delete(fields, "warnings")
	delete(fields, "file")
	is, err := structpb.NewStruct(fields)
	if err != nil {
		return nil, fmt.Errorf("edge: %w", err)
	}
	loads := e.Loads()
	res := &adminv1.GetConfigResponse{
		File: cfg.File, Config: is, Loaded: int64(loads.Good), Failed: int64(loads.Failed), Last: timestamppb.New(loads.At),
	}
	if loads.Err != nil {
		res.LastError = whereOf(loads.Err)
	}
	return res, nil
}

// whereOf is what is wrong with a file for those without the token: the places alone. The text has
// values and lines of the file; who has the token asks for a plan, and the log has it.
func whereOf(err error) string {
	bad, ok := errors.AsType[*config.Error](err)
	if !ok {
		return err.Error()
	}
	list := make([]string, len(bad.Problems))
	for i, p := range bad.Problems {
		list[i] = strings.TrimSuffix(fmt.Sprintf("%s:%d:%d: %s", p.File, p.Pos.Line, p.Pos.Col, p.Path), ": ")
	}
	return strings.Join(list, "\n")
}

// redaction takes secrets out of a configuration: all that came out of the environment,
// the values of fields that are added to requests, and what URLs have of users and queries.
type redaction struct{ env []string }

// hidden are mappings whose values may be secrets, by their keys.
var hidden = []string{"set", "add", "header", "headers"}

// value is what a value of config is as the file would say it; nil for what is not set.
func (r *redaction) value(key string, v reflect.Value) any {
	switch of := v.Interface().(type) {
	case time.Duration:
		if of == 0 {
			return nil
		}
		return of.String()
	case fmt.Stringer:
		if v.Kind() != reflect.Pointer && v.Kind() != reflect.Interface {
			return of.String()
		}
	case config.Pos:
		return nil
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil
		}
		return r.value(key, v.Elem())
	case reflect.Struct:
		return r.fields(v)
	case reflect.Slice, reflect.Array:
		list := make([]any, 0, v.Len())
		for i := range v.Len() {
			list = append(list, r.value(key, v.Index(i)))
		}
		if len(list) == 0 {
			return nil
		}
		return list
	case reflect.Map:
		return r.entries(key, v)
	case reflect.String:
		return r.text(v.String())
	case reflect.Bool:
		return v.Bool()
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return r.number(float64(v.Int()))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return r.number(float64(v.Uint()))
	case reflect.Float32, reflect.Float64:
		return r.number(v.Float())
	default: // a function, a logger: nothing that a file says
		return nil
	}
}

func (r *redaction) fields(v reflect.Value) any {
	all := make(map[string]any)
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if !f.IsExported() {
			continue
		}
		key := keyOf(f.Name)
		is := r.value(key, v.Field(i))
		more, ok := is.(map[string]any)
		switch _, again := all[key]; {
		case ok && f.Name == "Options":
			maps.Copy(all, more)
		case f.Name == "AuthAll":
			if is == true {
				all[key] = map[string]any{everyOne: all[key]}
			}
		case is != nil && is != "" && !again:
			all[key] = is
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

func (r *redaction) entries(key string, v reflect.Value) any {
	all := make(map[string]any)
	for _, k := range v.MapKeys() {
		is := r.value(key, v.MapIndex(k))
		if slices.Contains(hidden, key) && is != "" {
			is = redacted
		}
		all[fmt.Sprint(k.Interface())] = is
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

func (r *redaction) texts(list []string) []string {
	shown := make([]string, len(list))
	for i, s := range list {
		shown[i] = r.text(s)
	}
	return shown
}

func (r *redaction) number(n float64) any {
	if n == 0 {
		return nil
	}
	return n
}

// shortSecret is up to how many bytes a value of the environment is compared with all of
// a text, and not looked for in it: a port would be found everywhere.
const shortSecret = 4

func (r *redaction) text(s string) string {
	for _, secret := range r.env {
		if secret != "" && (s == secret || len(secret) > shortSecret && strings.Contains(s, secret)) {
			return redacted
		}
	}
	if !strings.Contains(s, "://") {
		return strings.ToValidUTF8(s, "?")
	}
	u, err := url.Parse(s)
	if err != nil {
		return redacted
	}
	if u.User == nil && u.RawQuery == "" {
		return s
	}
	if u.User != nil {
		u.User = url.User(redacted)
	}
	if u.RawQuery != "" {
		u.RawQuery = redacted
	}
	return u.String()
}

// planned says what loading the file now would change.
func (e *Edge) planned(context.Context) (*adminv1.PlanResponse, error) {
	cfg, err := config.Load(e.seen.Load().cfg.File)
	var plan Plan
	if err == nil {
		plan, err = e.Plan(cfg)
	}
	if err != nil {
		return &adminv1.PlanResponse{Problems: problems(err)}, nil
	}
	return &adminv1.PlanResponse{Plan: shownPlan(&plan)}, nil
}

func shownPlan(p *Plan) *adminv1.Plan {
	return &adminv1.Plan{
		Upstreams: shownChanges(&p.Upstreams), Routes: shownChanges(&p.Routes), Reordered: p.Reordered, Guards: p.Guards, Restart: p.Restart,
	}
}

func shownChanges(c *Changes) *adminv1.Changes {
	v := &adminv1.Changes{Added: c.Added, Removed: c.Removed, Untouched: int32(len(c.Same))}
	for _, change := range c.Changed {
		v.Changed = append(v.Changed, &adminv1.Change{Name: change.Name, Keys: change.Keys})
	}
	return v
}

// placed is how errors of this package begin: file:line:col: key: text.
var placed = regexp.MustCompile(`(?s)^(.+?):(\d+):(\d+): (?:([a-z_]+(?:[.\[][A-Za-z0-9_.\[\]-]+)?): )?(.*)$`)

// problems are all that is wrong in an error.
func problems(err error) (list []*adminv1.Problem) {
	if bad, ok := errors.AsType[*config.Error](err); ok {
		for _, p := range bad.Problems {
			list = append(list, &adminv1.Problem{File: p.File, Line: int32(p.Pos.Line), Column: int32(p.Pos.Col), Path: p.Path, Text: p.Text})
		}
		return list
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok { // of errors.Join
		for _, one := range many.Unwrap() {
			list = append(list, problems(one)...)
		}
		return list
	}
	m := placed.FindStringSubmatch(err.Error())
	if m == nil {
		return []*adminv1.Problem{{Text: err.Error()}}
	}
	line, _ := strconv.ParseInt(m[2], 10, 32) // the expression has found numbers
	col, _ := strconv.ParseInt(m[3], 10, 32)
	return []*adminv1.Problem{{File: m[1], Line: int32(line), Column: int32(col), Path: m[4], Text: m[5]}}
}
