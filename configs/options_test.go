package configs

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/gpuwm/gpuwm/core"
)

// optionsFile is a file with one device on a backend that has these options.
func optionsFile(t *testing.T, backend, options string) (*Deployment, error) {
	t.Helper()
	dir := t.TempDir()
	text := `version: 1
devices:
  - {name: d, backend: ` + backend + `, options: {` + options + `}}
entities:
  - {name: e, mode: compute}
jobs:
  - {name: j, entity: e, kernel: {wasm: k.wasm, entry: main1}, grid: [1, 1, 1]}
`
	for name, content := range map[string]string{"f.yaml": text, "k.wasm": "\x00asm"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	env := Env{OutputDir: dir}
	for _, name := range []string{"guc", "agx", "own"} {
		env.Backends = append(env.Backends, BackendInfo{Name: name, Engines: []EngineInfo{{Name: "wasm", Formats: []string{core.FormatWasm}}}})
	}
	return Load(filepath.Join(dir, "f.yaml"), env)
}

// TestOptionsOfBackends: a device takes the options that its backend has; what a
// configured backend takes is known when its plugin runs.
func TestOptionsOfBackends(t *testing.T) {
	for _, c := range []struct {
		backend, options string
		want             map[string]string
	}{
		{"agx", "slice: 20ms, firmware: 12.3, cores: 2", map[string]string{"slice": "20ms", "firmware": "12.3", "cores": "2"}},
		{"agx", `firmware: "13.5"`, map[string]string{"firmware": "13.5"}},
		{"own", "slice: 20ms, quantum: 20ms", map[string]string{"slice": "20ms", "quantum": "20ms"}},
	} {
		d, err := optionsFile(t, c.backend, c.options)
		if err != nil || !reflect.DeepEqual(d.Devices[0].Options, c.want) {
			t.Errorf("%s: %+v, %v", c.options, d, err)
		}
	}
	for _, c := range []struct{ backend, options, want string }{
		{"agx", "quantum: 20ms", `device "d": backend agx has no option "quantum"`},
		{"guc", "slice: 20ms", `device "d": backend guc has no option "slice"`},
		{"agx", "slice: 20", `slice: "20" has no unit`},
		{"agx", "slice: 11s", "slice: must be at most 10s"},
		{"agx", "firmware: 14", "firmware: must be one of 12.3, 13.5, this is 14"},
		{"agx", "firmware: best", `firmware: unknown word "best"`},
	} {
		if _, err := optionsFile(t, c.backend, c.options); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.options, err, c.want)
		}
	}
}

// TestDefaultsOfOtherBackends: a default for an engine goes to the devices whose backend has the option.
func TestDefaultsOfOtherBackends(t *testing.T) {
	s := &Settings{Engines: map[string]map[string]string{"wasm": {"quantum": "20ms", "slice": "10ms", "cores": "2"}}}
	got := s.WithDefaults([]core.DeviceSpec{{Backend: "guc", Engine: "wasm"}, {Backend: "agx", Engine: "wasm"}, {Backend: "own", Engine: "wasm"}})
	for i, want := range []map[string]string{{"quantum": "20ms", "cores": "2"}, {"slice": "10ms", "cores": "2"}, {"quantum": "20ms", "slice": "10ms", "cores": "2"}} {
		if !reflect.DeepEqual(got[i].Options, want) {
			t.Errorf("%s: %v, want %v", got[i].Backend, got[i].Options, want)
		}
	}
}
