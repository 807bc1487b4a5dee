package config

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
)

// node is a part of a JSON Schema.
type node map[string]any

// Schema is the JSON Schema of a file (draft 2020-12), for editors. It refuses
// nothing that Parse accepts, but for capitals in the schemes of URLs. It cannot know
// all that Parse does: whether an upstream exists, or what an earlier route hides.
func Schema() []byte {
	root := mappingAt("").schema()
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "oneport.yaml"
	root["$defs"] = node{"variable": node{
		"type": "string", "pattern": variableShape,
		"description": "${NAME} is replaced by the environment's variable.",
	}}
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	out.SetEscapeHTML(false)
	out.SetIndent("", "  ")
	_ = out.Encode(root) //nolint:errchkjson // strings, numbers, and lists and maps of them: it cannot fail
	return b.Bytes()
}

// variableShape is in a text that the environment completes.
const variableShape = `\$\{[A-Za-z_][A-Za-z0-9_]*\}`

// schema is that of a mapping.
func (m *mapping) schema() node {
	properties, needs, together := node{}, []string{}, node{}
	for _, k := range m.keys {
		s := k.is.schema(m.below(k.name))
		s["description"] = k.about
		if k.otherwise != "" {
			s["default"] = k.is.value(k.otherwise)
		}
		properties[k.name] = s
		if k.need {
			needs = append(needs, k.name)
		}
		if len(k.with) > 0 {
			together[k.name] = k.with
		}
	}
	s := node{"type": "object", "additionalProperties": false, "properties": properties}
	if len(needs) > 0 {
		s["required"] = needs
	}
	if len(together) > 0 {
		s["dependentRequired"] = together
	}
	var all []node
	for _, names := range m.oneOf {
		var one []node
		for _, name := range names {
			one = append(one, node{"required": []string{name}})
		}
		all = append(all, node{"oneOf": one})
	}
	if len(all) > 0 {
		s["allOf"] = all
	}
	return s
}

// schema is that of a value; path is where it stands.
func (k kind) schema(path string) node {
	switch k.base {
	case isText:
		return k.textSchema()
	case isDuration:
		return shaped(durationShape)
	case isSize:
		return shaped(sizeShape)
	case isRate:
		return shaped(rateShape)
	case isByteRate:
		return shaped(byteRateShape)
	case isPercent:
		return shaped(percentShape)
	case isFraction:
		return orVariable(node{"type": "number", "minimum": 0, "maximum": 1})
	case isCount:
		if k.numbers != nil {
			return orVariable(node{"enum": k.numbers})
		}
		return orVariable(node{"type": "integer", "minimum": k.least, "maximum": k.most})
	case isBool:
		return orVariable(node{"type": "boolean"})
	case isWords:
		return orVariable(node{"enum": k.words})
	case isOnOff:
		return node{"enum": []any{"on", "off", true, false}}
	case isMapping:
		return mappingAt(path).schema()
	case isNamed:
		return node{
			"type": "object", "additionalProperties": k.of[0].schema(path + ".*"),
			"propertyNames": node{"pattern": k.shape.String()},
		}
	case isList:
		return node{"type": "array", "items": k.of[0].schema(path + "[]"), "minItems": k.least}
	case isOneOrMore:
		return node{"anyOf": []node{k.of[0].schema(path), someOf(k.of[0]).schema(path)}}
	case isEither:
		var all []node
		for _, one := range k.of {
			all = append(all, one.schema(path))
		}
		return node{"anyOf": all}
	}
	return node{}
}

func (k kind) textSchema() node {
	s := node{"type": "string"}
	switch {
	case k.shape != nil:
		s = shaped(k.shape, k.words...)
	case !k.empty:
		s["minLength"] = 1
	}
	return s
}

// shaped is text of a shape, or one of some words, or with a variable in it.
func shaped(shape *regexp.Regexp, words ...string) node {
	all := []string{shape.String()}
	for _, word := range words {
		all = append(all, "^"+regexp.QuoteMeta(word)+"$")
	}
	return node{"type": "string", "pattern": strings.Join(append(all, variableShape), "|")}
}

func orVariable(s node) node {
	return node{"anyOf": []node{s, {"$ref": "#/$defs/variable"}}}
}
