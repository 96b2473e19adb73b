package fw

import (
	"fmt"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/plugins/guc/abi"
)

// Misuse is something that the host must not do. Which code answers which is
// not public: Config.Codes may change any of them.
type Misuse string

// The misuses, with the codes that answer them unless configured.
const (
	MisuseContextIndex  Misuse = "context-index"    // guc_id 65535 or more: 0x61.
	MisuseEngine        Misuse = "engine"           // No such class, or a mask beyond its instances: 0x64.
	MisuseRegistered    Misuse = "registered"       // Registered twice: 0x101.
	MisuseDeregistering Misuse = "deregistering"    // About to be forgotten: 0x90.
	MisuseRegistration  Misuse = "registration"     // Work queue or flags that are not modelled: 0x62.
	MisuseAddress       Misuse = "address"          // No such memory: 0x80.
	MisuseNotRegistered Misuse = "not-registered"   // 0x100.
	MisuseOpposite      Misuse = "opposite-pending" // Enable while a disable is under way: 0x90.
	MisuseStillEnabled  Misuse = "still-enabled"    // Deregister without disable: 0x0A.
	MisusePolicyKey     Misuse = "policy-key"       // 0x105.
	MisusePolicyLength  Misuse = "policy-length"    // 0x103.
	MisusePolicyValue   Misuse = "policy-value"     // 0x50.
	MisusePolicyBlock   Misuse = "policy-block"     // Not marked valid: 0x60.
	MisuseListSize      Misuse = "list-size"        // A list of features longer than a message: 0x102.
	MisuseSeqno         Misuse = "seqno"            // TLB invalidation out of range: 0x60.
	MisuseFunction      Misuse = "function"         // Another VFID than the device's: 0x0C.
	MisuseFunctionState Misuse = "function-state"   // Resume what runs, and the like: 0x0A.
	MisuseNotPaused     Misuse = "not-paused"       // Save or restore: 0x0A.
	MisuseShortBuffer   Misuse = "short-buffer"     // Save: 0x102.
	MisusePaused        Misuse = "paused"           // The guest speaks while it is paused: 0x0A.
	MisuseMarker        Misuse = "marker"           // RESFIX_DONE without its RESFIX_START: 0x107.
	MisuseMigrated      Misuse = "migrated"         // The guest has not fixed itself yet: 0x107.
	MisuseNotSupported  Misuse = "not-supported"    // Known and not modelled: 0x20.
	MisuseUnknownAction Misuse = "unknown-action"   // 0x30.
)

var misuseCodes = map[Misuse]abi.ErrorCode{
	MisuseContextIndex: abi.ErrorInvalidContextIndex, MisuseEngine: abi.ErrorInvalidEngine, MisuseRegistered: abi.ErrorContextRegistered,
	MisuseDeregistering: abi.ErrorPendingAction, MisuseRegistration: abi.ErrorInvalidRegistration, MisuseAddress: abi.ErrorInvalidGGTT,
	MisuseNotRegistered: abi.ErrorContextNotRegistered, MisuseOpposite: abi.ErrorPendingAction, MisuseStillEnabled: abi.ErrorInvalidState,
	MisusePolicyKey: abi.ErrorInvalidKLVKey, MisusePolicyLength: abi.ErrorMalformedKLV, MisusePolicyValue: abi.ErrorInvalidKLV,
	MisusePolicyBlock: abi.ErrorInvalidParams, MisuseListSize: abi.ErrorInvalidSize, MisuseSeqno: abi.ErrorInvalidParams,
	MisuseFunction: abi.ErrorInvalidVFID, MisuseFunctionState: abi.ErrorInvalidState, MisuseNotPaused: abi.ErrorInvalidState,
	MisuseShortBuffer: abi.ErrorInvalidSize, MisusePaused: abi.ErrorInvalidState, MisuseMarker: abi.ErrorVFMigrated,
	MisuseMigrated: abi.ErrorVFMigrated, MisuseNotSupported: abi.ErrorNotSupported, MisuseUnknownAction: abi.ErrorUnknownAction,
}

// code is what answers a misuse.
func (f *Firmware) code(m Misuse) abi.ErrorCode {
	if c, set := f.cfg.Codes[m]; set {
		return c
	}
	return misuseCodes[m]
}

// refusal answers a misuse.
func (f *Firmware) refusal(m Misuse) abi.Packet { return failure(f.code(m)) }

// OpenPoints are what the public sources leave open: each is one choice, and the
// other one can be switched on. The zero value is what this emulator chose.
type OpenPoints struct {
	// Codes answers misuses with other codes.
	Codes map[Misuse]abi.ErrorCode
	// ResetOrder is the order of STATE_CAPTURE, CONTEXT_RESET and the MODE_DONE
	// of a disable that had to be forced; all three, or nil for this order.
	ResetOrder []abi.Action
	// KeepPreemption leaves a preemption that runs alone when its context gets
	// another preemption timeout, instead of starting it anew.
	KeepPreemption bool
	// CarryQuantum lets a context that made room for a stronger one go on with
	// the rest of its quantum, instead of a new one.
	CarryQuantum bool
	// Promote moves a context that has waited so long to the next stronger level
	// until it has run; 0 is strict: the weak wait for ever.
	Promote time.Duration
	// NotifyFirst tells the end of a pause before the pause is answered.
	NotifyFirst bool
}

// resetOrder is the order of the messages of a forced disable.
var resetOrder = []abi.Action{abi.ActionStateCapture, abi.ActionContextReset, abi.ActionSchedContextModeDone}

// complete checks the choices and fills in the defaults.
func (o OpenPoints) complete() (OpenPoints, error) {
	for m, code := range o.Codes {
		if _, known := misuseCodes[m]; !known || code == 0 {
			return o, fmt.Errorf("code %#x for misuse %q: %w", uint16(code), m, ErrInvalid)
		}
	}
	if o.ResetOrder == nil {
		o.ResetOrder = resetOrder
	}
	a, b := slices.Sorted(slices.Values(o.ResetOrder)), slices.Sorted(slices.Values(resetOrder))
	if !slices.Equal(a, b) || o.Promote < 0 {
		return o, fmt.Errorf("reset order %v, promotion after %s: %w", o.ResetOrder, o.Promote, ErrInvalid)
	}
	return o, nil
}
