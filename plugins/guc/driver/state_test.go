package driver

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/gpuwm/gpuwm/core"
)

var rewrite = flag.Bool("rewrite", false, "write the tables that documents hold anew")

// TestTransitions checks the table as a whole: it is total, every state but the
// final ones can be reached and has a way to the end, and whatever happens to
// the device is legal in all of them.
func TestTransitions(t *testing.T) {
	ends, reached := map[state]bool{gone: true}, map[state]bool{unregistered: true}
	for range stateCount {
		for from, events := range transitions {
			for e, to := range events {
				if e == wedge {
					continue
				}
				ends[state(from)] = ends[state(from)] || ends[to]
				reached[to] = reached[to] || reached[state(from)]
			}
		}
	}
	for s := range stateCount {
		if stateRows[s].name == "" || stateRows[s].sentence == "" {
			t.Errorf("state %d is not described", s)
		}
		if !ends[s] && s != wedged || !reached[s] && s != wedged {
			t.Errorf("%s: end in reach %t, reached %t", s, ends[s], reached[s])
		}
		for e := range eventCount {
			to, err := s.next(e)
			var illegal *core.TransitionError
			if _, legal := transitions[s][e]; legal != (err == nil) || !legal && (!errors.As(err, &illegal) || to != s) {
				t.Errorf("%s, %s: %s, %v", s, e, to, err)
			}
		}
		if s == gone || s == wedged {
			if len(transitions[s]) > 0 {
				t.Errorf("%s is not final", s)
			}
			continue
		}
		for _, e := range []event{gtReset, revert, wedge} {
			if _, err := s.next(e); err != nil {
				t.Errorf("the device may do it at any time: %v", err)
			}
		}
	}
	for e := range eventCount {
		if eventRows[e].name == "" || eventRows[e].sentence == "" {
			t.Errorf("event %d is not described", e)
		}
	}
}

// TestNeverLegal is the list of section 4.2 of the reference, state by state.
func TestNeverLegal(t *testing.T) {
	has := func(s state, flag string) bool { return strings.Contains(" "+stateRows[s].flags+" ", " "+flag+" ") }
	for s := range stateCount {
		legal := func(e event) bool { _, ok := transitions[s][e]; return ok }
		pending := has(s, "PENDING_ENABLE") || has(s, "PENDING_DISABLE")
		check := func(what string, wrong bool) {
			if wrong {
				t.Errorf("%s: %s", s, what)
			}
		}
		enables := legal(sendEnable) || legal(sendResume)
		check("enable while a disable is pending", enables && has(s, "PENDING_DISABLE"))
		check("enable what is enabled", enables && has(s, "ENABLED"))
		check("a message about what is banned, killed, reset or wedged", (has(s, "BANNED") || has(s, "KILLED") || has(s, "RESET") || has(s, "WEDGED")) &&
			(enables || legal(sendSuspend) || legal(sendDisable) || legal(sendPolicies) || legal(sendKick)))
		check("a message to a firmware that does not know the context",
			!has(s, "REGISTERED") && (legal(sendSuspend) || legal(sendDisable) || legal(sendBan) || legal(sendDestroy) || legal(sendPolicies) || legal(sendKick)))
		check("MODE_DONE(1) without a pending enable", legal(modeEnabled) != has(s, "PENDING_ENABLE"))
		check("MODE_DONE(0) without a pending disable", legal(modeDisabled) != has(s, "PENDING_DISABLE"))
		check("DEREGISTER_DONE without a deregistration", legal(deregistered) != (s == deregistering))
		check("a disable while something is pending", pending && (legal(sendSuspend) || legal(sendDisable) || legal(sendBan) || legal(sendDestroy)))
		check("freed while the firmware knows it", legal(release) && has(s, "REGISTERED"))
		check("a kick of what is not enabled", legal(sendKick) && !has(s, "ENABLED"))
		for e, to := range transitions[s] {
			check(fmt.Sprintf("deregistered by %s", e), to == deregistering && s != deregistering && (s != destroying || e != modeDisabled))
			check(fmt.Sprintf("%s makes %s without the answer", e, to), e != gtReset && e != revert && e != wedge && e != modeEnabled && e != modeDisabled &&
				pending && !stateHasPending(to) && s != deregistering)
		}
		check("the flags disagree with what the driver believes", s.known() != has(s, "REGISTERED") ||
			s.pending() != (pending || s == deregistering) || s.leaving() != has(s, "PENDING_DISABLE"))
		check("off although it may execute", s.off() && (has(s, "ENABLED") || pending))
	}
}

func stateHasPending(s state) bool { return strings.Contains(stateRows[s].flags, "PENDING_") }

// docPage holds the table of states, between two marks.
const docPage = "../../../docs/backends/guc.md"

// TestStatesInDocs keeps the page's table equal to the code's; -rewrite writes it.
func TestStatesInDocs(t *testing.T) {
	var b strings.Builder
	b.WriteString("| state | flags of Xe | what it means | what may happen → and then |\n|---|---|---|---|\n")
	for s := range stateCount {
		var next []string
		for e := range eventCount {
			if to, ok := transitions[s][e]; ok && to != s && e != wedge {
				next = append(next, fmt.Sprintf("%s → %s", e, to))
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", s, stateRows[s].flags, stateRows[s].sentence, strings.Join(next, ", "))
	}
	b.WriteString("\n| event | what it is |\n|---|---|\n")
	for e := range eventCount {
		fmt.Fprintf(&b, "| %s | %s |\n", e, eventRows[e].sentence)
	}
	const begin, end = "<!-- states: generated by TestStatesInDocs -rewrite -->\n", "<!-- end of states -->\n"
	page, err := os.ReadFile(docPage)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(page), begin)
	have, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no marks for the table of states", docPage)
	}
	if have == b.String() {
		return
	}
	if !*rewrite {
		t.Fatalf("the table of states in %s is old: go test ./plugins/guc/driver -run TestStatesInDocs -rewrite", docPage)
	}
	if err := os.WriteFile(docPage, []byte(before+begin+b.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
