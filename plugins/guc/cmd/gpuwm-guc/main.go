// Command gpuwm-guc is the guc backend as a plugin executable.
package main

import (
	"github.com/gpuwm/gpuwm/plugins/guc"
	"github.com/gpuwm/gpuwm/sdk"
)

func main() { sdk.Serve(guc.New(guc.Options{})) }
