package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/gpuwm/gpuwm/configs"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// takes is what a verb takes besides flags: exactly these, in this order.
func takes(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		verb := verbPath(cmd)
		switch {
		case len(args) < len(names):
			return fmt.Errorf("%s: needs %s", verb, strings.Join(names[len(args):], " "))
		case len(args) > len(names) && len(names) == 0:
			return fmt.Errorf("%s: takes nothing, and %q is too much", verb, args[0])
		case len(args) > len(names):
			return fmt.Errorf("%s: takes %s only, and %q is too much", verb, strings.Join(names, " "), args[len(names)])
		}
		return nil
	}
}

// verbPath is a verb as one types it behind the program's name.
func verbPath(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
}

// flagError says in our words what is wrong with a flag.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var bare *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "":
		return unknownFlag(cmd, unknown.GetSpecifiedName())
	case errors.As(err, &unknown):
		return fmt.Errorf("unknown flag -%s", unknown.GetSpecifiedName())
	case errors.As(err, &bare):
		return fmt.Errorf("--%s: needs a value", bare.GetFlag().Name)
	case errors.As(err, &invalid):
		return fmt.Errorf("--%s %s: %w", invalid.GetFlag().Name, invalid.GetValue(), plain(invalid.Unwrap()))
	}
	return err
}

// unknownFlag says which flag was probably meant.
func unknownFlag(cmd *cobra.Command, name string) error {
	var known []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
	err := fmt.Errorf("unknown flag --%s", name)
	if best, ok := configs.Nearest(name, known); ok {
		return &ExitError{Code: ExitUsage, Hint: fmt.Sprintf("did you mean --%s?", best), Err: fmt.Errorf("usage: %w", err)}
	}
	return err
}

// plain takes the name of a function out of an error about a number.
func plain(err error) error {
	var number *strconv.NumError
	if !errors.As(err, &number) {
		return err
	}
	if errors.Is(err, strconv.ErrRange) {
		return errors.New("out of range")
	}
	return errors.New("must be a whole number")
}
