package configs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gpuwm/gpuwm/core"
	"github.com/spf13/pflag"
)

// environment makes a lookup of pairs.
func environment(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := 0; i+1 < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

func testFlags(t *testing.T, args ...string) *pflag.FlagSet {
	t.Helper()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	for _, k := range settingsKeys {
		flags.String(k, "", "")
	}
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return flags
}

func writeFile(t *testing.T, name, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSettingsDefaults(t *testing.T) {
	for _, c := range []struct {
		env  []string
		want string
	}{
		{[]string{"HOME", "/home/u"}, "/home/u/.local/state/gpuwm"},
		{[]string{"HOME", "/home/u", "XDG_STATE_HOME", "/state"}, "/state/gpuwm"},
		{[]string{"HOME", "/home/u", "XDG_STATE_HOME", "not/absolute"}, "/home/u/.local/state/gpuwm"},
	} {
		s, err := LoadSettings(nil, "", environment(c.env...))
		if err != nil {
			t.Fatal(err)
		}
		want := []Setting{
			{KeyDataDir, c.want, "default"}, {KeySocket, c.want + "/gpuwm.sock", "default"},
			{KeyLogLevel, "info", "default"}, {KeyLogFormat, "text", "default"},
		}
		if diff := cmp.Diff(want, s.Show()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	_, err := LoadSettings(nil, "", environment())
	if bad := (*SettingError)(nil); !errors.As(err, &bad) || bad.Hint() == "" {
		t.Errorf("without a home: %v", err)
	}
}

func TestSettingsPrecedence(t *testing.T) {
	plugin := writeFile(t, "plugin", "x", 0o755)
	digest := core.DigestOf([]byte("x"))
	file := writeFile(t, "config.yaml", `# all of it
data-dir: state
socket: /from/file.sock
log-level: debug
plugins: {Vendor.X: {path: `+plugin+`, digest: `+digest.String()+`}}
engines: {wasm: {cores: 2, quantum: 0.05s, hang-deadline: 90s}}
`, 0o644)
	env := environment("HOME", "/home/u", "GPUWM_SOCKET", "/from/env.sock", "GPUWM_LOG_LEVEL", "warn", "GPUWM_LOG_FORMAT", "", "GPUWM_CONFIG", file)
	s, err := LoadSettings(testFlags(t, "--log-level=error"), "", env)
	if err != nil {
		t.Fatal(err)
	}
	want := []Setting{
		{KeyDataDir, filepath.Join(filepath.Dir(file), "state"), "file " + file},
		{KeySocket, "/from/env.sock", "environment GPUWM_SOCKET"},
		{KeyLogLevel, "error", "flag --log-level"},
		{KeyLogFormat, "text", "default"},
		{"plugins.Vendor.X.path", plugin, "file " + file},
		{"plugins.Vendor.X.digest", digest.String(), "file " + file},
		{"engines.wasm.cores", "2", "file " + file},
		{"engines.wasm.hang-deadline", "1m30s", "file " + file},
		{"engines.wasm.quantum", "50ms", "file " + file},
	}
	if diff := cmp.Diff(want, s.Show()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if p := s.Plugins["Vendor.X"]; p.Digest != digest || p.Path != plugin {
		t.Errorf("plugin %+v", p)
	}
	devices := []core.DeviceSpec{{Name: "a", Engine: "wasm", Options: map[string]string{"cores": "1"}}, {Name: "b", Engine: "opencl:0"}}
	got := s.WithDefaults(devices)
	if diff := cmp.Diff(map[string]string{"cores": "1", "quantum": "50ms", "hang-deadline": "1m30s"}, got[0].Options); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
	if got[1].Options != nil || len(devices[0].Options) != 1 {
		t.Errorf("options of others changed: %v %v", got[1], devices[0])
	}
}

func TestSettingsFileOfTheUser(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "gpuwm", "config.yaml")
	if err := os.Mkdir(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("log-level: trace\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := LoadSettings(nil, "", environment("HOME", "/home/u", "XDG_CONFIG_HOME", dir))
	if err != nil || s.LogLevel != "trace" || s.File != file {
		t.Errorf("%+v, %v", s, err)
	}
	if err := os.WriteFile(file, []byte("# nothing yet\n\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err := LoadSettings(nil, "", environment("HOME", "/home/u", "XDG_CONFIG_HOME", dir)); err != nil || s.LogLevel != "info" {
		t.Errorf("comments only: %+v, %v", s, err)
	}
}

func TestBadSettings(t *testing.T) {
	home := environment("HOME", "/home/u")
	for content, want := range map[string]string{
		"log-levle: info\n":                             `1:1: unknown key "log-levle" in configuration`,
		"log-level: loud\n":                             `1:12: log-level: unknown word "loud"`,
		"log-level: true\n":                             `1:12: log-level: must be a word, this is true or false`,
		"engines: {wasm: {quantum: 5}}\n":               `1:27: quantum: "5" has no unit`,
		"engines: {wsam: {cores: 2}}\n":                 `1:17: engines: there is no engine "wsam"`,
		"engines: {wasm: {instances: 2}}\n":             `1:18: unknown key "instances" in wasm`,
		"plugins: {guc: {path: nowhere}}\n":             `1:23: plugin nowhere: no such file or directory`,
		"plugins: {guc: {digest: abc}}\n":               `1:16: guc: key "path" is missing`,
		"plugins: {guc: {path: config.yaml}}\n":         `1:23: plugin config.yaml: not an executable file`,
		"plugins: [guc]\n":                              `1:10: plugins: must be a map, this is a list`,
		"data-dir: a\ndata-dir: b\n":                    `2:1: key "data-dir" stands twice in configuration`,
		"data-dir: [a\n":                                `not valid YAML`,
		"plugins: {a b: {path: x, digest: 12}}\n":       `1:34: digest: must be text, this is a number`,
		"socket: 7\nlog-format: xml\nengines: {w: 1}\n": `2:13: log-format: unknown word "xml"`,
	} {
		file := writeFile(t, "config.yaml", content, 0o644)
		s, err := LoadSettings(nil, file, home)
		var bad *FileError
		if s != nil || !errors.As(err, &bad) || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), file+":") {
			t.Errorf("%q: %v, want %s", content, err, want)
		}
	}
	_, err := LoadSettings(nil, "", environment("HOME", "/home/u", "GPUWM_LOG_LEVEL", "inof"))
	if bad := (*SettingError)(nil); !errors.As(err, &bad) || bad.Error() != `environment GPUWM_LOG_LEVEL: unknown word "inof"` || bad.Hint() != `did you mean "info"?` {
		t.Errorf("bad variable: %v", err)
	}
	_, err = LoadSettings(testFlags(t, "--data-dir="), "", home)
	if bad := (*SettingError)(nil); !errors.As(err, &bad) || bad.Error() != "flag --data-dir: is empty" || bad.Hint() == "" {
		t.Errorf("empty flag: %v", err)
	}
	if _, err := LoadSettings(nil, filepath.Join(t.TempDir(), "none.yaml"), home); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file that was asked for: %v", err)
	}
}
