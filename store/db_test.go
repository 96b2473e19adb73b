package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	bolt "go.etcd.io/bbolt"
)

func TestEmptyStore(t *testing.T) {
	db := openStore(t, t.TempDir())
	same(t, "snapshot", &core.Snapshot{NextEntity: 1, NextJob: 1}, mustLoad(t, db))
}

func TestLoadReturnsWhatWasCommitted(t *testing.T) {
	db := openStore(t, t.TempDir())
	mustLoad(t, db)
	instance := core.InstanceRecord{Backend: "guc", Instance: "x1", ProtocolVersion: 1,
		Devices: []core.DeviceSpec{{Name: "guc0", Backend: "guc", Engine: "wasm"}}}
	mustCommit(t, db, entityWrite(2, 5, 7))
	mustCommit(t, db, entityWrite(1, 8, 9))
	mustCommit(t, db, &core.Write{Instances: []core.InstanceRecord{instance, {Instance: "x2"}}, Session: 9})
	state := entityState(2)
	state.Residency, state.Epoch, state.Commands = core.Resident, 3, 12
	done := jobState(2, 6)
	done.Phase, done.Executed = core.JobCompleted, 1<<60
	mustCommit(t, db, &core.Write{EntityStates: []core.EntityState{state}, JobStates: []core.JobState{done},
		RemoveInstances: []string{"x2", "never was"}, Session: 4, NextJob: 3})

	one, two := entityWrite(1, 8, 9), entityWrite(2, 5, 7)
	want := &core.Snapshot{Session: 9, NextEntity: 3, NextJob: 10, Instances: []core.InstanceRecord{instance},
		Entities: []core.EntityRecord{
			{Spec: one.Entities[0], State: one.EntityStates[0], Jobs: []core.JobRecord{
				{Spec: one.Jobs[0], State: one.JobStates[0]}, {Spec: one.Jobs[1], State: one.JobStates[1]}}},
			{Spec: two.Entities[0], State: state, Jobs: []core.JobRecord{
				{Spec: two.Jobs[0], State: two.JobStates[0]}, {Spec: two.Jobs[1], State: done}, {Spec: two.Jobs[2], State: two.JobStates[2]}}},
		}}
	same(t, "same process", want, mustLoad(t, db))
	same(t, "next process", want, reload(t, db))
}

func TestJobsComeInSubmissionOrder(t *testing.T) {
	db := openStore(t, t.TempDir())
	w := entityWrite(1, 1, 0)
	w.Jobs = []*core.JobSpec{jobSpec(1, 9, 1), jobSpec(1, 4, 2), jobSpec(1, 6, 3)}
	w.JobStates = []core.JobState{jobState(1, 4), jobState(1, 6), jobState(1, 9)}
	w.NextJob = 10
	mustCommit(t, db, w)
	var got []core.JobID
	for _, j := range reload(t, db).Entities[0].Jobs {
		got = append(got, j.State.ID)
	}
	same(t, "jobs", []core.JobID{9, 4, 6}, got)
}

func TestRemovedEntityTakesItsJobs(t *testing.T) {
	db := openStore(t, t.TempDir())
	mustCommit(t, db, entityWrite(1, 1, 3))
	mustCommit(t, db, entityWrite(2, 4, 5))
	mustCommit(t, db, &core.Write{RemoveEntities: []core.EntityID{1}, JobStates: []core.JobState{jobState(1, 2)}})
	s := reload(t, db)
	if len(s.Entities) != 1 || s.Entities[0].Spec.ID != 2 || len(s.Entities[0].Jobs) != 2 {
		t.Errorf("left: %+v", s.Entities)
	}
	if s.NextEntity != 3 || s.NextJob != 6 || s.Quarantined != nil {
		t.Errorf("next entity %d, job %d, quarantined %q", s.NextEntity, s.NextJob, s.Quarantined)
	}
}

func TestCallbacksComeInOrder(t *testing.T) {
	const clients, each = 8, 100
	db := openStore(t, t.TempDir())
	var order [clients][]int
	var wait sync.WaitGroup
	for c := range clients {
		wait.Go(func() {
			var left sync.WaitGroup
			left.Add(each)
			for i := range each {
				id := core.JobID(c*each + i + 1)
				w := &core.Write{Jobs: []*core.JobSpec{jobSpec(core.EntityID(c+1), id, core.JobSeq(i+1))},
					JobStates: []core.JobState{jobState(core.EntityID(c+1), id)}}
				if i == 0 {
					w.Entities, w.EntityStates = []core.EntitySpec{entitySpec(core.EntityID(c + 1))}, []core.EntityState{entityState(core.EntityID(c + 1))}
				}
				db.Commit(w, func(err error) {
					if err != nil {
						t.Error(err)
					}
					order[c] = append(order[c], i)
					left.Done()
				})
			}
			left.Wait()
		})
	}
	wait.Wait()
	for c := range clients {
		for i, n := range order[c] {
			if n != i {
				t.Fatalf("client %d: callback %d came at place %d", c, n, i)
			}
		}
	}
	for _, e := range reload(t, db).Entities {
		if len(e.Jobs) != each {
			t.Errorf("entity %d: %d jobs", e.Spec.ID, len(e.Jobs))
		}
	}
}

// script is a series of writes of which each builds on the one before.
func script() []*core.Write {
	removal := entityWrite(3, 8, 8)
	removal.RemoveEntities = []core.EntityID{1}
	state := jobState(1, 2)
	state.Phase = core.JobDispatched
	return []*core.Write{entityWrite(1, 1, 3), {JobStates: []core.JobState{state}, Session: 1}, entityWrite(2, 4, 7), removal}
}

func TestEveryWriteFailsOnce(t *testing.T) {
	var after []*core.Snapshot
	plain := openStore(t, t.TempDir())
	after = append(after, mustLoad(t, plain))
	for _, w := range script() {
		mustCommit(t, plain, w)
		after = append(after, mustLoad(t, plain))
	}
	for n := 1; ; n++ {
		db := openStore(t, t.TempDir())
		hook, hit := faultAt(n)
		db.fault = hook
		for i, w := range script() {
			if err := commit(db, w); err == nil {
				continue
			}
			if err := commit(db, &core.Write{Session: 99}); err == nil {
				t.Fatalf("fault %d: a write after the failed one was taken", n)
			}
			got := mustLoad(t, db)
			if d := got.NextJob; d == after[i].NextJob && got.Session == after[i].Session {
				same(t, fmt.Sprintf("fault %d, not done", n), after[i], got)
			} else {
				same(t, fmt.Sprintf("fault %d, done unnoticed", n), after[i+1], got)
			}
			mustCommit(t, db, w)
		}
		same(t, fmt.Sprintf("fault %d, end", n), after[len(after)-1], reload(t, db))
		if !hit() {
			return
		}
	}
}

func TestWritesQueuedBehindAFailureFail(t *testing.T) {
	db := openStore(t, t.TempDir())
	gate := make(chan struct{})
	db.fault = func(step string) error {
		if step != "before" {
			return nil
		}
		<-gate
		return errors.New("no space")
	}
	results := make(chan error, 3)
	for range 3 {
		db.Commit(&core.Write{Session: 1}, func(err error) { results <- err })
	}
	close(gate)
	for range 3 {
		if err := <-results; err == nil || !strings.Contains(err.Error(), "no space") {
			t.Errorf("error %v", err)
		}
	}
	db.fault = func(string) error { return errors.New("still no space") }
	if _, err := db.Load(); err == nil {
		t.Error("load took a disk that takes no writes")
	}
	db.fault = nil
	mustLoad(t, db)
	mustCommit(t, db, &core.Write{Session: 2})
}

func TestQueueIsBounded(t *testing.T) {
	db := openStore(t, t.TempDir())
	gate := make(chan struct{})
	db.fault = func(string) error { <-gate; return nil }
	big := entitySpec(1)
	big.Device = strings.Repeat("x", 4<<20)
	w := &core.Write{Entities: []core.EntitySpec{big}, EntityStates: []core.EntityState{entityState(1)}}
	var results []error
	for range 2 * queuedMax / len(big.Device) {
		db.Commit(w, func(err error) { results = append(results, err) })
	}
	close(gate)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	taken := 0
	for taken < len(results) && results[taken] == nil {
		taken++
	}
	if taken < queuedMax/len(big.Device) || taken == len(results) {
		t.Fatalf("%d of %d writes taken", taken, len(results))
	}
	for _, err := range results[taken:] {
		wantError(t, "write into a full queue", err, core.ErrFull)
	}
}

func TestInvalidWrites(t *testing.T) {
	for name, w := range map[string]*core.Write{
		"entity":   {Entities: []core.EntitySpec{{}}},
		"state":    {EntityStates: []core.EntityState{{}}},
		"job":      {Jobs: []*core.JobSpec{{ID: 1, Entity: 1}}},
		"jobstate": {JobStates: []core.JobState{{ID: 1}}},
		"instance": {Instances: []core.InstanceRecord{{}}},
	} {
		db := openStore(t, t.TempDir())
		wantError(t, name, commit(db, w), core.ErrInvalid)
	}
}

func TestClose(t *testing.T) {
	db := openStore(t, t.TempDir())
	answered := 0
	for range 50 {
		db.Commit(&core.Write{Session: 3}, func(error) { answered++ })
	}
	if err := errors.Join(db.Close(), db.Close()); err != nil {
		t.Fatal(err)
	}
	if answered != 50 {
		t.Errorf("%d of 50 answered before Close returned", answered)
	}
	wantError(t, "after close", commit(db, &core.Write{}), ErrClosed)
}

func TestDirectoryIsLocked(t *testing.T) {
	dir := t.TempDir()
	first, err := Open(dir, Options{Start: "running mersenne.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(dir, Options{})
	wantError(t, "second open", err, core.ErrBusy)
	if want := fmt.Sprintf("pid %d, running mersenne.yaml", os.Getpid()); !strings.Contains(err.Error(), want) {
		t.Errorf("%v does not say %q", err, want)
	}
	_, err = Check(dir)
	wantError(t, "check", err, core.ErrBusy)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	openStore(t, dir)
}

func TestCrashCopyLoads(t *testing.T) {
	db := openStore(t, t.TempDir())
	for i, w := range script() {
		mustCommit(t, db, w)
		want := mustLoad(t, db)
		same(t, fmt.Sprint("copy after write ", i), want, mustLoad(t, openStore(t, copyTree(t, db.dir))))
	}
}

func TestCheckNeedsAStore(t *testing.T) {
	_, err := Check(t.TempDir())
	wantError(t, "check", err, core.ErrNotFound)
}

func TestCheckNamesProblems(t *testing.T) {
	dir := t.TempDir()
	db, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := entityWrite(1, 1, 1)
	w.EntityStates[0].Generation = 7
	w.NextJob = 1
	mustCommit(t, db, w)
	mustCommit(t, db, &core.Write{JobStates: []core.JobState{jobState(5, 3)}})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	problems, err := Check(dir)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "problems", []string{
		"entity 1: image 7 is on record and not in its file",
		"state.db: entity 5 with its 1 jobs: job 3: state without a spec",
		"state.db: next_entity is 2 and 5 is in use",
		"state.db: next_job is 1 and 3 is in use",
	}, problems)
}

func TestMigration(t *testing.T) {
	dir := t.TempDir()
	db := openStore(t, dir)
	mustCommit(t, db, entityWrite(1, 1, 2))
	want := mustLoad(t, db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "state.db")
	fail := errors.New("broken step")
	steps := []migration{
		{about: "labels", compatible: 1, apply: func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("labels")); return err }},
		{about: "names", compatible: 3, apply: func(tx *bolt.Tx) error { return fail }},
	}
	migrated := func(steps []migration) error {
		file, err := openFile(path, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		return errors.Join(migrate(file, path, steps), file.Close())
	}
	wantError(t, "broken step", migrated(steps), fail)
	same(t, "after a broken step", want, mustLoad(t, openStore(t, copyTree(t, dir))))
	if err := migrated(steps[:1]); err != nil {
		t.Fatal(err)
	}
	// Schema 2 says that schema 1 reads it.
	same(t, "compatible schema", want, mustLoad(t, openStore(t, copyTree(t, dir))))

	steps[1].apply = func(*bolt.Tx) error { return nil }
	if err := errors.Join(migrated(steps), migrated(steps)); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir, Options{})
	wantError(t, "newer schema", err, ErrNewerSchema)
	if err == nil || !strings.Contains(err.Error(), "schema 3, this release reads up to 1") {
		t.Errorf("error %v", err)
	}
	// The copies made before each migration still open. The last test's cleanup
	// checks dir, which therefore goes back to the oldest.
	for _, schema := range []string{"2", "1"} {
		if err := os.Rename(path+".schema-"+schema, path); err != nil {
			t.Fatal(err)
		}
		same(t, "copy of schema "+schema, want, mustLoad(t, openStore(t, copyTree(t, dir))))
	}
}

func TestStateFileAppearsWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.db")
	fail := errors.New("power cut")
	wantError(t, "create", createFile(path, func(*bolt.Tx) error { return fail }), fail)
	if _, err := os.Stat(path); err == nil {
		t.Error("half a file under the final name")
	}
	if err := os.WriteFile(path+".tmp", bytes.Repeat([]byte{1}, 9000), 0o600); err != nil {
		t.Fatal(err)
	}
	openStore(t, dir)
}
