package store

import (
	"sync"
	"testing"

	"github.com/gpuwm/gpuwm/core"
)

// TestLoadsBesideACommit: two devices load at once, and a third commits.
func TestLoadsBesideACommit(t *testing.T) {
	db := openStore(t, t.TempDir())
	mustCommit(t, db, entityWrite(1, 1, 3))
	done := make(chan struct{})
	var loads, commits sync.WaitGroup
	for range 2 {
		loads.Go(func() {
			for range 200 {
				s, err := db.Load()
				if err != nil || s == nil || len(s.Entities) != 1 {
					t.Errorf("load: %v, %v", s, err)
					return
				}
			}
		})
	}
	commits.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				db.Commit(&core.Write{}, nil)
			}
		}
	})
	loads.Wait()
	close(done)
	commits.Wait()
}
