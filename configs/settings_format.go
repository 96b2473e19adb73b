package configs

import "slices"

// Names of the settings; each is a flag, an environment variable
// (GPUWM_ and the name in capitals) and a key of the configuration file.
const (
	KeyDataDir   = "data-dir"
	KeySocket    = "socket"
	KeyLogLevel  = "log-level"
	KeyLogFormat = "log-format"
	// KeyConfig is flag and environment variable only: it names the file.
	KeyConfig = "config"
)

// settingsShape is the format of the configuration file.
var settingsShape = mapping("configuration",
	key{name: KeyDataDir, doc: "Directory of records and images.", shape: text},
	key{name: KeySocket, doc: "Unix socket of the daemon.", shape: text},
	key{name: KeyLogLevel, fallback: "info", doc: "Least severe log lines to write.", shape: word("trace", "debug", "info", "warn", "error", "off")},
	key{name: KeyLogFormat, fallback: "text", doc: "Form of log lines.", shape: word("text", "json")},
	key{name: "plugins", doc: "Executables of backends, by name of the backend.", shape: dict("plugins", pluginShape)},
	key{name: "engines", doc: "Defaults for the options of devices, by engine.", shape: dict("engines", mapping("engine", engineKeys...))},
)

var pluginShape = mapping("plugin",
	key{name: "path", required: true, doc: "The executable, relative to this file.", shape: text},
	key{name: "digest", doc: "SHA-256 of the executable in hexadecimal; another one is not started.", shape: text},
)

// engineKeys are the device options that belong to the engine.
var engineKeys = slices.DeleteFunc(slices.Clone(optionKeys), func(k key) bool {
	return slices.Contains([]string{"instances", "firmware", "faults"}, k.name)
})

// knownEngines are those that may have defaults: a device of any backend has one of them.
var knownEngines = []string{"wasm", "opencl", "test"}

// settingsKeys are the keys with one value, which may come from flags and environment too.
var settingsKeys = []string{KeyDataDir, KeySocket, KeyLogLevel, KeyLogFormat}

// SettingsSchema returns the JSON schema of the configuration file.
func SettingsSchema() []byte { return render(settingsShape, "gpuwm configuration file") }

// SettingsWords returns the words a setting may have, nil when any text will do.
func SettingsWords(name string) []string {
	k, _ := settingsShape.key(name)
	if k.shape == nil {
		return nil
	}
	return k.shape.words
}
