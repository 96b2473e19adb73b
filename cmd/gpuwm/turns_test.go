package main

import (
	"encoding/json"
	"fmt"
	"strings"
)

// tookTurns checks, in a log in JSON format, that two entities with one job
// each worked side by side: each of them has an image of the middle of its job
// from before the other's job had ended.
func tookTurns(log, entityA, jobA, entityB, jobB string) error {
	type line struct {
		Message string `json:"@message"`
		Entity  string `json:"entity"`
		Job     string `json:"job"`
		State   string `json:"state"`
		Cursors string `json:"cursors"`
	}
	middle, ended := map[string]bool{}, map[string]bool{}
	for text := range strings.Lines(log) {
		var l line
		if json.Unmarshal([]byte(text), &l) != nil {
			continue
		}
		switch {
		case l.Message == "image saved" && !ended[jobA] && !ended[jobB]:
			_, cursor, found := strings.Cut(strings.TrimSpace(l.Cursors), ":")
			middle[l.Entity] = middle[l.Entity] || found && cursor != "0"
		case l.Message == "job completed", l.State == "flushing":
			ended[l.Job] = true
		}
	}
	for _, e := range []string{entityA, entityB} {
		if !middle[e] {
			return fmt.Errorf("entity %s has no image of the middle of its job from the time when both ran:\n%s", e, log)
		}
	}
	if !ended[jobA] || !ended[jobB] {
		return fmt.Errorf("the log shows no end of %s and %s", jobA, jobB)
	}
	return nil
}
