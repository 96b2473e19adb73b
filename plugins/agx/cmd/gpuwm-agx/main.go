// Command gpuwm-agx is the agx backend as a plugin executable.
package main

import (
	"github.com/gpuwm/gpuwm/plugins/agx"
	"github.com/gpuwm/gpuwm/sdk"
)

func main() { sdk.Serve(agx.New(agx.Options{})) }
