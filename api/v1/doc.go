// Package apiv1 is the wire form of the seams: the backend seam between the
// daemon and a plugin process. All of it but this file is generated from
// backend.proto, which documents every message and the packed layouts.
//
// `go generate ./api/v1` writes the generated files anew; `generate check`
// fails when they do not come from backend.proto.
package apiv1

//go:generate ./generate
