package configs

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

func compile(t *testing.T, schema []byte) *jsonschema.Schema {
	t.Helper()
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", parsed); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// asJSON turns YAML into what a JSON schema judges.
func asJSON(t *testing.T, content []byte) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal(content, &v); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	out, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSchemaTakesGoodFiles(t *testing.T) {
	schema := compile(t, Schema())
	samples, _ := filepath.Glob("testdata/good/*.yaml")
	shipped, _ := filepath.Glob("*.yaml")
	if len(samples) == 0 {
		t.Fatal("no samples")
	}
	for _, s := range append(samples, shipped...) {
		content, err := os.ReadFile(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(asJSON(t, content)); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
}

// TestSchemaRefusesBadFiles lists the samples that a schema alone can refuse.
func TestSchemaRefusesBadFiles(t *testing.T) {
	schema := compile(t, Schema())
	for _, s := range strings.Fields("version missing-sections unknown-key-top unknown-key-levels units types words names ranges not-a-map several") {
		content, err := os.ReadFile(filepath.Join("testdata", "bad", s+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		if schema.Validate(asJSON(t, content)) == nil {
			t.Errorf("%s: the schema takes it", s)
		}
	}
}

// TestSchemaKnowsEveryKey walks both and compares.
func TestSchemaKnowsEveryKey(t *testing.T) {
	for _, c := range []struct {
		root   *shape
		schema []byte
	}{{deploymentShape, Schema()}, {settingsShape, SettingsSchema()}} {
		compile(t, c.schema)
		if !bytes.Contains(c.schema, []byte(SchemaDialect)) {
			t.Error("no dialect")
		}
		var walk func(s *shape)
		walk = func(s *shape) {
			for _, k := range s.keys {
				if k.doc == "" || !bytes.Contains(c.schema, []byte(`"`+k.name+`":`)) {
					t.Errorf("key %s: not documented", k.name)
				}
				walk(k.shape)
			}
			if s.elem != nil {
				walk(s.elem)
			}
			for _, alternative := range s.choices {
				walk(alternative)
			}
		}
		walk(c.root)
	}
}

func TestAliasBomb(t *testing.T) {
	text := "version: 1\nentities: [{name: e, mode: compute}]\njobs: [{after: &x [" + strings.Repeat("q, ", 1000) + "q]}, " + strings.Repeat("{after: *x}, ", 200) + "]\n"
	_, err := parse("f.yaml", "/f.yaml", []byte(text), Env{})
	if err == nil || !strings.Contains(err.Error(), "aliases expand to more than 100000 values") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %.200v", err)
	}
	loop := "version: 1\nentities: &a [*a]\njobs: &b {x: *b}\n"
	if _, err := parse("f.yaml", "/f.yaml", []byte(loop), Env{}); err == nil {
		t.Error("a loop of aliases was taken")
	}
}
