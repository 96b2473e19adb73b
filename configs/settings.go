package configs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gpuwm/gpuwm/core"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// Settings are how the program itself runs: flags over environment over
// configuration file over defaults. They are made anew by each LoadSettings
// and never change.
type Settings struct {
	// DataDir and Socket are absolute paths; they need not exist.
	DataDir string
	Socket  string
	// LogLevel is trace, debug, info, warn, error or off; LogFormat text or json.
	LogLevel  string
	LogFormat string
	// Plugins are the configured executables by backend.
	Plugins map[string]PluginFile
	// Engines are default device options by engine, in canonical form.
	Engines map[string]map[string]string
	// File is the configuration file that was read, empty when there was none.
	File string
	// origins says where each setting comes from.
	origins map[string]string
}

// PluginFile is the executable of a backend.
type PluginFile struct {
	// Path is absolute; the file was executable when the settings were loaded.
	Path string
	// Digest must be that of the file when it is started, unless it is zero.
	Digest core.Digest
}

// Setting is one setting as it is shown.
type Setting struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	// Origin is default, flag, environment or the file.
	Origin string `json:"origin"`
}

// SettingError says that a flag or an environment variable has a value that
// cannot be used.
type SettingError struct {
	// Origin is the flag or variable.
	Origin, Problem, HintText string
}

// Error implements error.
func (e *SettingError) Error() string { return e.Origin + ": " + e.Problem }

// Hint says what to write instead; empty when there is nothing to add.
func (e *SettingError) Hint() string { return e.HintText }

// EnvironmentName returns the variable of a flag: data-dir becomes GPUWM_DATA_DIR.
func EnvironmentName(flag string) string {
	return "GPUWM_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// LoadSettings joins flags, environment, file and defaults. file is what
// --config says; when it is empty, GPUWM_CONFIG and then the user's
// configuration directory are looked at, where a missing file is no error.
// flags may be nil; only flags that were changed count. lookup reads the
// environment (os.LookupEnv). A bad file gives a *FileError, a bad flag or
// variable a *SettingError.
func LoadSettings(flags *pflag.FlagSet, file string, lookup func(string) (string, bool)) (*Settings, error) {
	env := func(name string) string {
		v, _ := lookup(name)
		return v
	}
	file, content, err := settingsFile(file, env)
	if err != nil {
		return nil, err
	}
	s := &Settings{File: file, origins: map[string]string{}}
	written, err := s.readFile(content)
	if err != nil {
		return nil, err
	}
	v := viper.NewWithOptions(viper.KeyDelimiter("::"))
	s.defaults(v, env)
	if err := v.MergeConfigMap(written); err != nil {
		return nil, fmt.Errorf("merge configuration file: %w", err)
	}
	for _, k := range settingsKeys {
		var flag *pflag.Flag
		if flags != nil {
			flag = flags.Lookup(k)
		}
		name := EnvironmentName(k)
		switch {
		case flag != nil && flag.Changed && flag.Value.String() == "":
			return nil, &SettingError{"flag --" + k, "is empty", "give it a value, or leave it out"}
		case flag != nil && flag.Changed:
			if err := v.BindPFlag(k, flag); err != nil {
				return nil, fmt.Errorf("bind flag --%s: %w", k, err)
			}
			s.origins[k] = "flag --" + k
		case env(name) != "":
			v.Set(k, env(name))
			s.origins[k] = "environment " + name
		}
	}
	var merged struct {
		DataDir   string `mapstructure:"data-dir"`
		Socket    string `mapstructure:"socket"`
		LogLevel  string `mapstructure:"log-level"`
		LogFormat string `mapstructure:"log-format"`
	}
	if err := v.UnmarshalExact(&merged); err != nil {
		return nil, fmt.Errorf("merge settings: %w", err)
	}
	s.DataDir, s.Socket, s.LogLevel, s.LogFormat = merged.DataDir, merged.Socket, merged.LogLevel, merged.LogFormat
	return s, s.complete()
}

// settingsFile returns path and content of the configuration file, both empty
// when there is none.
func settingsFile(file string, env func(string) string) (string, []byte, error) {
	asked := file
	if asked == "" {
		asked = env(EnvironmentName(KeyConfig))
	}
	path := asked
	if path == "" {
		dir := env("XDG_CONFIG_HOME")
		if !filepath.IsAbs(dir) {
			if env("HOME") == "" {
				return "", nil, nil
			}
			dir = filepath.Join(env("HOME"), ".config")
		}
		path = filepath.Join(dir, "gpuwm", "config.yaml")
	}
	content, err := readFile(path)
	if asked == "" && errors.Is(err, fs.ErrNotExist) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, fmt.Errorf("read configuration file: %w", err)
	}
	return path, content, nil
}

// defaults sets what holds when nobody says otherwise.
func (s *Settings) defaults(v *viper.Viper, env func(string) string) {
	for _, k := range settingsKeys {
		v.SetDefault(k, fallback(settingsShape, k))
		if s.origins[k] == "" {
			s.origins[k] = "default"
		}
	}
	state := env("XDG_STATE_HOME")
	if !filepath.IsAbs(state) {
		if env("HOME") == "" {
			return
		}
		state = filepath.Join(env("HOME"), ".local", "state")
	}
	v.SetDefault(KeyDataDir, filepath.Join(state, "gpuwm"))
}

// readFile decodes the configuration file strictly. Only settings with one
// value go on to viper: it would fold the case of the names in the maps.
func (s *Settings) readFile(content []byte) (map[string]any, error) {
	out := map[string]any{}
	if onlyComments(content) {
		return out, nil
	}
	p := &problems{file: s.File}
	root := decodeFile(content, settingsShape, p)
	if root == nil {
		return nil, p.err()
	}
	absolute, err := filepath.Abs(s.File)
	if err != nil {
		return nil, fmt.Errorf("read configuration file: %w", err)
	}
	f := newFiles(filepath.Dir(absolute), "", p)
	for _, k := range settingsKeys {
		got := root.get(k)
		if got == nil {
			continue
		}
		out[k], s.origins[k] = got.text, "file "+s.File
		if k == KeyDataDir || k == KeySocket {
			out[k] = f.path(got)
		}
	}
	if plugins := root.get("plugins"); plugins != nil {
		s.Plugins = map[string]PluginFile{}
		for _, name := range plugins.order {
			s.addPlugin(name, plugins.get(name), f)
		}
	}
	if engines := root.get("engines"); engines != nil {
		s.Engines = map[string]map[string]string{}
		for _, name := range engines.order {
			if !slices.Contains(knownEngines, name) {
				p.add(engines.at(name), didYouMean(name, knownEngines), "engines: there is no engine %q", shorten(name))
			}
			s.Engines[name] = options(engines.get(name))
		}
	}
	return out, p.err()
}

// onlyComments reports whether a file sets nothing, which is fine for this one.
func onlyComments(content []byte) bool {
	for line := range bytes.Lines(content) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			return false
		}
	}
	return true
}

// addPlugin checks one configured plugin.
func (s *Settings) addPlugin(name string, v *value, f *files) {
	path := v.get("path")
	if path == nil {
		return
	}
	if !nameRegexp.MatchString(name) {
		f.add(v.node, nameRule, "plugins: %q is not a name", shorten(name))
	}
	plugin := PluginFile{Path: f.path(path)}
	info, err := os.Stat(plugin.Path)
	switch {
	case err != nil:
		f.add(path.node, pathHint(err), "plugin %s: %s", shorten(path.text), reason(err))
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		f.add(path.node, "", "plugin %s: not an executable file", shorten(path.text))
	}
	if digest := v.get("digest"); digest != nil {
		if err := plugin.Digest.UnmarshalText([]byte(digest.text)); err != nil {
			f.add(digest.node, "sha256sum prints it", "plugin %s: %v", name, err)
		}
	}
	s.Plugins[name] = plugin
}

// complete checks the joined settings and makes paths absolute.
func (s *Settings) complete() error {
	if s.DataDir == "" {
		return &SettingError{"data directory", "neither XDG_STATE_HOME nor HOME is set", "choose one with --data-dir or GPUWM_DATA_DIR"}
	}
	for _, c := range []struct{ key, value string }{{KeyLogLevel, s.LogLevel}, {KeyLogFormat, s.LogFormat}} {
		if words := SettingsWords(c.key); !slices.Contains(words, c.value) {
			return &SettingError{s.origins[c.key], fmt.Sprintf("unknown word %q", shorten(c.value)), didYouMean(c.value, words)}
		}
	}
	var err error
	if s.DataDir, err = filepath.Abs(s.DataDir); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if s.Socket == "" {
		s.Socket = filepath.Join(s.DataDir, "gpuwm.sock")
	}
	if s.Socket, err = filepath.Abs(s.Socket); err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	return nil
}

// Show lists the settings with their origins, in a fixed order.
func (s *Settings) Show() []Setting {
	file := "file " + s.File
	out := []Setting{
		{KeyDataDir, s.DataDir, s.origins[KeyDataDir]},
		{KeySocket, s.Socket, s.origins[KeySocket]},
		{KeyLogLevel, s.LogLevel, s.origins[KeyLogLevel]},
		{KeyLogFormat, s.LogFormat, s.origins[KeyLogFormat]},
	}
	for _, name := range slices.Sorted(maps.Keys(s.Plugins)) {
		p := s.Plugins[name]
		out = append(out, Setting{"plugins." + name + ".path", p.Path, file})
		if p.Digest != (core.Digest{}) {
			out = append(out, Setting{"plugins." + name + ".digest", p.Digest.String(), file})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Engines)) {
		for _, option := range slices.Sorted(maps.Keys(s.Engines[name])) {
			out = append(out, Setting{"engines." + name + "." + option, s.Engines[name][option], file})
		}
	}
	return out
}

// WithDefaults returns the devices with the engine defaults of the settings
// filled in where a device does not say otherwise and its backend has the option. The argument is not changed.
func (s *Settings) WithDefaults(devices []core.DeviceSpec) []core.DeviceSpec {
	out := slices.Clone(devices)
	for i := range out {
		family, _, _ := strings.Cut(out[i].Engine, ":")
		defaults := s.Engines[family]
		if len(defaults) == 0 {
			continue
		}
		merged := maps.Clone(defaults)
		maps.DeleteFunc(merged, func(option, _ string) bool { return !hasOption(out[i].Backend, option) })
		maps.Copy(merged, out[i].Options)
		out[i].Options = merged
	}
	return out
}

// PluginNames lists the configured backends in alphabetical order.
func (s *Settings) PluginNames() []string { return slices.Sorted(maps.Keys(s.Plugins)) }
