// Package wire joins what the program is made of: the store, the plugin host,
// the manager and the built-in plugins. It is the only place that sees them
// all; the verbs see its functions.
package wire
