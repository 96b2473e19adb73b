// Package configs decodes the two kinds of files that a person writes: the
// deployment file (which jobs run, on what) and the configuration file (where
// the program keeps its things). It owns their formats, defaults and JSON
// schema.
//
// Both formats are written down once, as tables of keys (deployment_format.go,
// settings_format.go). The strict decoder, the defaults and the JSON schema
// are all driven by these tables, so that they cannot differ.
//
// Decoding has two stages. The first compares the YAML nodes with the table:
// unknown keys, types, units, ranges. The second sees only values that passed
// and checks what they mean together: names, references, cycles, files. Both
// add to one list of problems, each with file, line and column, and all of
// them are reported at once. Nothing is ever created on disk here.
//
// Decoding by struct tags was rejected: it stops at the first error of a kind,
// knows no columns, and takes `quantum: 5` for five nanoseconds.
package configs
