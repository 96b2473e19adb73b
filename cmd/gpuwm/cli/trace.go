package cli

import (
	"encoding/json"
	"fmt"

	"github.com/gpuwm/gpuwm/configs"
	"github.com/gpuwm/gpuwm/core"
	"github.com/spf13/cobra"
)

// TraceRequest asks for the trace of one device.
type TraceRequest struct {
	Settings *configs.Settings
	Device   string
	// Follow goes on with each message as it comes, until the device or ctx ends.
	Follow bool
	// Line takes the messages in order.
	Line func(core.TraceLine) error
}

// traceView is one message as `trace -o json` prints it.
type traceView struct {
	Number uint64 `json:"number"`
	Kind   string `json:"kind"`
	Text   string `json:"text"`
}

// traceLast is how many messages `trace` prints unless it is told otherwise.
const traceLast = 100

func (c *command) traceVerb() *cobra.Command {
	var follow bool
	var last int
	trace := &cobra.Command{
		Use:   "trace DEVICE",
		Short: "Print the decoded firmware messages of a running device",
		Args:  takes("DEVICE"),
		RunE: c.action(func(cmd *cobra.Command, args []string) error {
			if last < 0 {
				return &ExitError{Code: ExitUsage, Err: fmt.Errorf("usage: --last %d: must not be negative", last)}
			}
			return c.trace(cmd, args[0], follow, last)
		}),
	}
	trace.Flags().BoolVarP(&follow, "follow", "f", false, "go on with each message as it comes, one JSON object a line with -o json")
	trace.Flags().IntVarP(&last, "last", "n", traceLast, "how many of the kept messages to print; without --follow")
	return trace
}

func (c *command) trace(cmd *cobra.Command, device string, follow bool, last int) error {
	settings, err := c.settings(cmd)
	if err != nil {
		return badFile(err)
	}
	var kept []core.TraceLine
	request := TraceRequest{Settings: settings, Device: device, Follow: follow, Line: func(l core.TraceLine) error {
		if kept = append(kept, l); len(kept) > last {
			kept = kept[len(kept)-last:]
		}
		return nil
	}}
	if follow {
		request.Line = func(l core.TraceLine) error {
			if c.output == OutputJSON {
				out := json.NewEncoder(c.stdout)
				out.SetEscapeHTML(false)
				return out.Encode(traceView(l))
			}
			return c.traceLine(l)
		}
	}
	if err := c.app.Trace(cmd.Context(), request); err != nil || follow {
		return err
	}
	if c.output == OutputJSON {
		views := make([]traceView, len(kept))
		for i, l := range kept {
			views[i] = traceView(l)
		}
		return printJSON(c.stdout, views)
	}
	for _, l := range kept {
		if err := c.traceLine(l); err != nil {
			return err
		}
	}
	return nil
}

func (c *command) traceLine(l core.TraceLine) error {
	_, err := fmt.Fprintf(c.stdout, "%8d  %-4s  %s\n", l.Number, l.Kind, l.Text)
	return err
}
