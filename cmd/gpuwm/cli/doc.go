// Package cli is the command line: flags, verbs, exit codes, tables and JSON,
// and the progress on the terminal. It sees core, configs and the API only.
//
// What really runs a deployment is injected by the wiring (App.Run), so that
// this package can be tested in process and cannot reach into the daemon.
//
// Standard output carries results only; progress, messages and errors go to
// standard error. Every flag is also an environment variable: --data-dir is
// GPUWM_DATA_DIR.
package cli
