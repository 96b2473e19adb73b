// Command gpuwm-mali is the mali backend as a plugin executable.
package main

import (
	"github.com/gpuwm/gpuwm/plugins/mali"
	"github.com/gpuwm/gpuwm/sdk"
)

func main() { sdk.Serve(mali.New(mali.Options{})) }
