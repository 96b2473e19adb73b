package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
	bolt "go.etcd.io/bbolt"
)

// problemsMax bounds the problems that Check lists of one file.
const problemsMax = 100

// Check reads everything in the data directory dir and returns what is wrong,
// one sentence each: pages, checksums, records without their counterpart,
// generations that are not whole or whose bytes differ, recorded images that are
// not there. It changes nothing. The error says why it could not check:
// core.ErrBusy while somebody has the store open, core.ErrNotFound when dir
// holds no store.
func Check(dir string) ([]string, error) {
	if _, err := os.Stat(filepath.Join(dir, "state.db")); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("check %s: no state.db: %w", dir, core.ErrNotFound)
	}
	lock, err := takeLock(dir, "checking")
	if err != nil {
		return nil, err
	}
	defer func() { _ = lock.Close() }()
	var c checking
	c.file(filepath.Join(dir, "state.db"), c.state)
	images, err := c.images(filepath.Join(dir, "images"))
	if err != nil {
		return nil, err
	}
	for entity, gen := range c.recorded {
		if !slices.Contains(images[entity], gen) {
			c.add("entity %d: image %d is on record and not in its file", entity, gen)
		}
	}
	slices.Sort(c.problems)
	return c.problems, nil
}

// CheckImages is Check for a directory that holds image files only.
func CheckImages(dir string) ([]string, error) {
	var c checking
	_, err := c.images(dir)
	return c.problems, err
}

type checking struct {
	problems []string
	// recorded are the generations that records name.
	recorded map[core.EntityID]core.Generation
}

func (c *checking) add(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// file runs inspect and bbolt's own check on one file.
func (c *checking) file(path string, inspect func(*bolt.Tx) error) {
	name := filepath.Base(path)
	db, err := openFile(path, openTimeout)
	if err != nil {
		c.add("%s: %v", name, err)
		return
	}
	defer func() { _ = guarded(db.Close) }()
	// inspect comes first: it reads every page under guard, and bbolt's check,
	// which runs in a goroutine of its own, follows only where that went well.
	err = guarded(func() error { return db.View(inspect) })
	if err != nil {
		c.add("%s: %v", name, err)
		return
	}
	_ = db.View(func(tx *bolt.Tx) error {
		n := 0
		for err := range tx.Check() {
			if n++; n <= problemsMax {
				c.add("%s: %v", name, err)
			}
		}
		return nil
	})
}

func (c *checking) state(tx *bolt.Tx) error {
	schema, compatible, err := readSchema(tx)
	if err == nil {
		err = checkSchema(schema, compatible, firstSchema+len(migrations))
	}
	if err != nil {
		return err
	}
	found, err := readContents(tx, time.Unix(0, 0))
	if err != nil {
		return err
	}
	for _, sentence := range found.snapshot.Quarantined {
		c.add("state.db: %s", sentence)
	}
	c.recorded = make(map[core.EntityID]core.Generation)
	for _, e := range found.snapshot.Entities {
		if e.State.Generation != 0 && !e.State.Closed {
			c.recorded[e.Spec.ID] = e.State.Generation
		}
	}
	c.counter(tx, counterNextEntity, uint64(found.snapshot.NextEntity))
	c.counter(tx, counterNextJob, uint64(found.snapshot.NextJob))
	return nil
}

// counter checks that the next identifier on record has not been used. A store
// whose counter was never written has nothing to compare.
func (c *checking) counter(tx *bolt.Tx, name string, lowest uint64) {
	value := tx.Bucket([]byte(bucketCounters)).Get([]byte(name))
	if n, err := decodeNumber(value); err == nil && n < lowest {
		c.add("state.db: %s is %d and %d is in use", name, n, lowest-1)
	}
}

// images checks all image files and returns the generations of each.
func (c *checking) images(dir string) (map[core.EntityID][]core.Generation, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("check images: %w", err)
	}
	found := make(map[core.EntityID][]core.Generation)
	for _, e := range entries {
		entity, rest, ok := parseImageName(e.Name())
		if !ok || rest != "" {
			continue
		}
		c.file(filepath.Join(dir, e.Name()), func(tx *bolt.Tx) error {
			gens, err := c.image(tx, e.Name(), entity)
			found[entity] = gens
			return err
		})
	}
	return found, nil
}

// image checks one image file: kernels, and each generation with its chunks.
func (c *checking) image(tx *bolt.Tx, name string, entity core.EntityID) ([]core.Generation, error) {
	if err := checkImageSchema(tx); err != nil {
		return nil, err
	}
	err := tx.Bucket([]byte(imageKernels)).ForEach(func(digest, value []byte) error {
		if _, err := decodeKernel(digest, value); err != nil {
			c.add("%s: %v", name, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	verified := make(map[core.Digest]bool)
	buffer := make([]byte, core.ChunkSize)
	var gens []core.Generation
	for _, key := range keysWithPrefix(tx.Bucket([]byte(imageGenerations)), nil) {
		id, err := splitEntityKey(key)
		if err != nil {
			c.add("%s: generation: %v", name, err)
			continue
		}
		gen := core.Generation(id)
		g, err := readGeneration(tx, gen)
		if err != nil {
			c.add("%s: %v", name, err)
			continue
		}
		gens = append(gens, gen)
		if g.header.Entity != entity {
			c.add("%s: generation %d is of entity %d", name, gen, g.header.Entity)
		}
		_ = g.refs(func(ref core.ChunkRef) error {
			if verified[ref.Digest] || ref.Digest == zeroDigest(ref.Size) {
				return nil
			}
			verified[ref.Digest] = true
			if _, err := readChunk(tx, ref, buffer); err != nil {
				c.add("%s: generation %d: buffer %s: chunk %d: %v", name, gen, g.header.Buffers[ref.Buffer].Name, ref.Index, err)
			}
			return nil
		})
	}
	return gens, nil
}
