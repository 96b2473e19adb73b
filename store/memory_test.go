package store

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gpuwm/gpuwm/core"
)

// TestMemoryIsTheFile has a file and a Memory take the same writes: what they
// load is equal, so that what a simulation finds is true of the file.
func TestMemoryIsTheFile(t *testing.T) {
	db, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Load(); err != nil {
		t.Fatal(err)
	}
	memory := NewMemory()
	job := func(id core.JobID, entity core.EntityID, seq core.JobSeq) *core.JobSpec {
		return &core.JobSpec{ID: id, Entity: entity, Seq: seq, Name: "j", Grid: [3]uint32{3, 1, 1}, Credits: 1}
	}
	writes := []core.Write{
		{
			Entities:     []core.EntitySpec{{ID: 1, Name: "a"}, {ID: 256, Name: "b"}},
			EntityStates: []core.EntityState{{ID: 1, Goal: core.GoalRun}, {ID: 256}},
			Jobs:         []*core.JobSpec{job(7, 256, 1), job(3, 1, 2), job(9, 1, 1)},
			JobStates:    []core.JobState{{ID: 7, Entity: 256}, {ID: 3, Entity: 1}, {ID: 9, Entity: 1}},
			Session:      4, NextJob: 10,
		},
		{Session: 3, NextEntity: 300, JobStates: []core.JobState{{ID: 9, Entity: 1, Phase: core.JobCompleted}}},
		{RemoveEntities: []core.EntityID{256}, Instances: []core.InstanceRecord{{Instance: "x"}}},
		{RemoveInstances: []string{"x"}},
	}
	for i := range writes {
		done := make(chan error, 1)
		db.Commit(&writes[i], func(err error) { done <- err })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		change, err := Encode(&writes[i])
		if err != nil {
			t.Fatal(err)
		}
		memory.Apply(change)
		want, err := db.Load()
		if err != nil {
			t.Fatal(err)
		}
		got, err := memory.Load()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("after write %d, file and memory differ:\n%s", i, diff)
		}
	}
}
