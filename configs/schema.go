package configs

import (
	"encoding/json"
	"math"
	"strconv"

	"github.com/gpuwm/gpuwm/core"
)

// SchemaDialect is the JSON schema version that Schema uses.
const SchemaDialect = "https://json-schema.org/draft/2020-12/schema"

// Schema returns the JSON schema of the deployment file, indented, ending with
// a newline. It says what one value may be; names, references and files are
// checked by Load only.
func Schema() []byte { return render(deploymentShape, "gpuwm deployment file") }

func render(root *shape, title string) []byte {
	s := root.schema()
	s["$schema"] = SchemaDialect
	s["title"] = title
	out, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic("configs: schema: " + err.Error())
	}
	return append(out, '\n')
}

// schema translates a shape.
func (s *shape) schema() map[string]any {
	switch s.kind {
	case kindMap:
		properties, required := keySchemas(s.keys)
		out := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
		if len(required) > 0 {
			out["required"] = required
		}
		return out
	case kindDict:
		return map[string]any{"type": "object", "additionalProperties": s.elem.schema()}
	case kindSingle:
		out := map[string]any{"type": "object", "minProperties": 1, "maxProperties": 1}
		if s.elem != nil {
			out["additionalProperties"] = s.elem.schema()
			return out
		}
		out["properties"], _ = keySchemas(s.keys)
		out["additionalProperties"] = false
		return out
	case kindList:
		return map[string]any{"type": "array", "items": s.elem.schema(), "minItems": s.min, "maxItems": s.max}
	case kindName:
		return map[string]any{"type": "string", "pattern": namePattern}
	case kindText:
		return map[string]any{"type": "string", "minLength": 1}
	case kindWord:
		return wordSchema(s.words)
	case kindInt:
		return map[string]any{"type": "integer", "minimum": s.min, "maximum": s.max}
	case kindDuration:
		return map[string]any{"type": "string", "pattern": durationPattern}
	case kindSize:
		return map[string]any{"type": "string", "pattern": sizePattern}
	case kindNumber:
		return numberSchema(s.arg)
	case kindChoice:
		choices := make([]any, len(s.choices))
		for i, c := range s.choices {
			choices[i] = c.schema()
		}
		return map[string]any{"anyOf": choices}
	}
	panic("configs: shape without a kind")
}

// keySchemas translates the keys of a map, with their documentation and defaults.
func keySchemas(keys []key) (properties map[string]any, required []string) {
	properties = map[string]any{}
	for _, k := range keys {
		one := k.shape.schema()
		one["description"] = k.doc
		if k.fallback != "" {
			one["default"] = fallbackJSON(k)
		}
		properties[k.name] = one
		if k.required {
			required = append(required, k.name)
		}
	}
	return properties, required
}

// fallbackJSON returns a default as JSON has it.
func fallbackJSON(k key) any {
	switch k.shape.kind {
	case kindName, kindText, kindWord, kindDuration, kindSize:
		return k.fallback
	}
	return json.RawMessage(k.fallback)
}

// wordSchema lists words; one that YAML reads as a number, such as 13.5, may stand there as that.
func wordSchema(words []string) map[string]any {
	all, texts := []any{}, true
	for _, w := range words {
		all = append(all, w)
		if v, err := strconv.ParseFloat(w, 64); err == nil {
			all, texts = append(all, v), false
		}
	}
	out := map[string]any{"enum": all}
	if texts {
		out["type"] = "string"
	}
	return out
}

// numberSchema gives the range of an argument.
func numberSchema(kind core.ArgKind) map[string]any {
	switch kind {
	case core.ArgF32:
		return map[string]any{"type": "number", "minimum": -math.MaxFloat32, "maximum": math.MaxFloat32}
	case core.ArgF64:
		return map[string]any{"type": "number"}
	}
	width := uint(8 * kind.Size())
	low, high := "0", strconv.FormatUint(math.MaxUint64>>(64-width), 10)
	if kind == core.ArgI32 || kind == core.ArgI64 {
		low, high = strconv.FormatInt(-1<<(width-1), 10), strconv.FormatInt(1<<(width-1)-1, 10)
	}
	return map[string]any{"type": "integer", "minimum": json.Number(low), "maximum": json.Number(high)}
}
