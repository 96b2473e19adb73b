// Package pythonplugin tests the plugin in Python beside it with the conformance
// kit. The plugin is made from docs/plugin-protocol.md alone: what it needs to know
// and does not find there is a fault of that page.
package pythonplugin
