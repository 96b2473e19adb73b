package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gpuwm/gpuwm/core"
	bolt "go.etcd.io/bbolt"
)

// ErrClosed is given to the writes that come after Close.
var ErrClosed = errors.New("store closed")

// openTimeout is how long Open waits for another process's lock on a file.
const openTimeout = 2 * time.Second

// suspectSuffix marks a file that Open rebuilds.
const suspectSuffix = ".suspect"

// Options are what may be chosen of a store; the zero value serves.
type Options struct {
	// Start completes "held by pid n, …" for who finds the directory locked.
	// Default: "since" and the present time.
	Start string
	// Timeout bounds the wait for a lock on state.db. Default: 2 s.
	Timeout time.Duration
	// Now is the clock, for creation times. Default: time.Now.
	Now func() time.Time
	// between is called between the steps of a repair; tests copy the directory.
	between func()
}

// DB is the open store of a data directory. Its methods may be called from any
// goroutine.
type DB struct {
	dir     string
	now     func() time.Time
	lock    *os.File
	bolt    *bolt.DB
	images  *Images
	stopped chan struct{}
	// fault is called at each step of a transaction; tests make it fail.
	fault func(step string) error
	// reports are sentences about what Open had to set aside.
	reports []string
	// between is that of Options.
	between func()

	mu struct {
		sync.Mutex
		// wake is signalled when queue, closing or both have changed.
		wake  *sync.Cond
		queue []entry
		// queued is the size of the queue's records in bytes.
		queued  int
		closing bool
		// failed is why writes are refused until the next Load.
		failed error
		// read is what Open found, until the first Load or Commit.
		read *core.Snapshot
		// asides are bad records that the next commit sets aside.
		asides []aside
		// quarantined are the entities in quarantine; their images are kept.
		quarantined map[core.EntityID]bool
	}
}

// Open opens the store in dir, and creates what is missing. The error wraps
// core.ErrBusy when another process holds dir, and ErrNewerSchema when a newer
// release wrote it. A damaged state.db is renamed aside together with its
// images and a new one is begun; the first Snapshot says so.
func Open(dir string, opts Options) (*DB, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Start == "" {
		opts.Start = "since " + opts.Now().Format(time.RFC3339)
	}
	if opts.Timeout <= 0 {
		opts.Timeout = openTimeout
	}
	if opts.between == nil {
		opts.between = func() {}
	}
	if err := makeDirectory(dir, syncDirectory); err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	lock, err := takeLock(dir, opts.Start)
	if err != nil {
		return nil, err
	}
	db := &DB{dir: dir, now: opts.Now, lock: lock, between: opts.between, stopped: make(chan struct{})}
	db.mu.wake = sync.NewCond(&db.mu)
	if err := db.open(opts.Timeout); err != nil {
		_ = lock.Close()
		return nil, err
	}
	db.images, err = OpenImages(filepath.Join(dir, "images"))
	if err != nil {
		_ = db.bolt.Close()
		_ = lock.Close()
		return nil, err
	}
	db.images.spare = db.inQuarantine
	go db.write()
	return db, nil
}

// Images returns the images of the entities on record.
func (db *DB) Images() *Images { return db.images }

// Load returns everything on record. It is called before the first Commit, and
// again after one that failed, also while others load or commit. Records that
// cannot be read are left out, and named in Quarantined; the next commit moves
// them to the quarantine bucket. After a failure Load first proves, by an empty
// synced transaction, that the disk takes writes again.
func (db *DB) Load() (*core.Snapshot, error) {
	db.mu.Lock()
	snapshot, failed := db.mu.read, db.mu.failed
	db.mu.read = nil
	db.mu.Unlock()
	if failed != nil {
		if err := db.update(func(*bolt.Tx) error { return nil }); err != nil {
			return nil, fmt.Errorf("load records: after %w: %w", failed, err)
		}
	}
	if snapshot == nil {
		var err error
		if snapshot, err = db.read(); err != nil {
			return nil, fmt.Errorf("load records: %w", err)
		}
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.mu.failed = nil
	return snapshot, nil
}

// Close commits what is queued, calls the outstanding callbacks, and lets go of
// the directory. A repeat does nothing.
func (db *DB) Close() error {
	db.mu.Lock()
	again := db.mu.closing
	db.mu.closing = true
	db.mu.wake.Broadcast()
	db.mu.Unlock()
	<-db.stopped
	if again {
		return nil
	}
	err := guarded(db.bolt.Close)
	if e := db.lock.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// open opens state.db and reads it once, so that damage anywhere in it is
// found now.
func (db *DB) open(timeout time.Duration) error {
	path := filepath.Join(db.dir, "state.db")
	err := db.openState(path, timeout)
	if !errors.Is(err, core.ErrCorrupt) {
		return err
	}
	db.between()
	n, e := keepAside(path, filepath.Join(db.dir, "images"), db.between)
	if e == nil {
		e = os.RemoveAll(path + suspectSuffix)
	}
	if e == nil {
		e = createFile(path, createState(db.now()))
	}
	if e != nil {
		return e
	}
	db.reports = append(db.reports, fmt.Sprintf(
		"state.db was damaged (%v); it is kept as state.db.damaged-%d with its images in images.damaged-%d, and a new one was begun", err, n, n))
	return db.openState(path, timeout)
}

func (db *DB) openState(path string, timeout time.Duration) error {
	file, err := openFile(path, timeout)
	if errors.Is(err, fs.ErrNotExist) {
		if err := db.setLostAside(); err != nil {
			return err
		}
		if err := createFile(path, createState(db.now())); err != nil {
			return fmt.Errorf("create %s: %w", path, err)
		}
		file, err = openFile(path, timeout)
	}
	if err != nil {
		return err
	}
	if file, err = db.rebuildSuspect(file, path, timeout); err != nil {
		return err
	}
	db.bolt = file
	err = guarded(func() error { return migrate(file, path, migrations) })
	if err == nil {
		db.mu.read, err = db.read()
	}
	if err != nil {
		_ = guarded(file.Close)
		return fmt.Errorf("open %s: %w", path, err)
	}
	return nil
}

// setLostAside sets images aside whose records are lost: state.db is made before
// the first of them.
func (db *DB) setLostAside() error {
	images := filepath.Join(db.dir, "images")
	if entries, err := os.ReadDir(images); errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	n, err := moveAside(images)
	if err != nil {
		return err
	}
	db.reports = append(db.reports, fmt.Sprintf(
		"state.db was missing; the images beside it are kept in images.damaged-%d, and a new one was begun", n))
	return nil
}

// rebuildSuspect copies the records of a file in which a write met damage into a
// new file, and keeps the old one aside. Such damage may lie where reading never
// comes, for instance in the list of free pages.
func (db *DB) rebuildSuspect(file *bolt.DB, path string, timeout time.Duration) (*bolt.DB, error) {
	if _, err := os.Lstat(path + suspectSuffix); err != nil {
		return file, nil
	}
	rebuilt := path + ".rebuilt"
	err := createFile(rebuilt, func(to *bolt.Tx) error {
		return guarded(func() error {
			return file.View(func(from *bolt.Tx) error { return copyBuckets(to, from) })
		})
	})
	_ = guarded(file.Close)
	if err != nil {
		// What cannot be copied cannot be read; the caller sets the file aside,
		// and the mark has done its work.
		return nil, errors.Join(fmt.Errorf("rebuild %s: %w", path, err), os.Remove(path+suspectSuffix))
	}
	db.between()
	n, err := keepAside(path, "", db.between)
	if err == nil {
		db.between()
		err = replaceFile(rebuilt, path)
		db.between()
	}
	if err == nil {
		err = os.Remove(path + suspectSuffix)
	}
	if err != nil {
		return nil, fmt.Errorf("rebuild %s: %w", path, err)
	}
	db.reports = append(db.reports, fmt.Sprintf(
		"a write to state.db met damage; it is kept as state.db.damaged-%d, and its records were copied into a new one", n))
	return openFile(path, timeout)
}

// copyBuckets copies all buckets with their keys and sequence numbers; state.db
// nests none.
func copyBuckets(to, from *bolt.Tx) error {
	return from.ForEach(func(name []byte, b *bolt.Bucket) error {
		into, err := to.CreateBucket(name)
		if err != nil {
			return err
		}
		if err := into.SetSequence(b.Sequence()); err != nil {
			return err
		}
		return b.ForEach(func(k, v []byte) error {
			if v == nil {
				return fmt.Errorf("bucket %s nests another: %w", name, core.ErrCorrupt)
			}
			return into.Put(k, v)
		})
	})
}

// read returns all records, and notes in mu.asides what must be set aside.
func (db *DB) read() (*core.Snapshot, error) {
	var found contents
	err := guarded(func() error {
		return db.bolt.View(func(tx *bolt.Tx) (err error) {
			found, err = readContents(tx, db.now())
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	found.snapshot.Quarantined = append(append([]string(nil), db.reports...), found.snapshot.Quarantined...)
	db.mu.Lock()
	defer db.mu.Unlock()
	db.mu.asides, db.mu.quarantined = found.asides, found.quarantined
	return found.snapshot, nil
}

func (db *DB) inQuarantine(id core.EntityID) bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.mu.quarantined[id]
}

// update runs f in a transaction, and marks the file when that meets damage, so
// that the next Open rebuilds it.
func (db *DB) update(f func(*bolt.Tx) error) error {
	err := faultyUpdate(db.bolt, db.fault, f)
	if errors.Is(err, core.ErrCorrupt) {
		mark := db.bolt.Path() + suspectSuffix
		err = errors.Join(err, os.WriteFile(mark, []byte(err.Error()+"\n"), 0o600))
	}
	return err
}

// faultyUpdate is bolt.DB.Update with damage turned into errors and, for tests,
// a fault before it, in it, and between the commit and its report.
func faultyUpdate(file *bolt.DB, fault func(step string) error, f func(*bolt.Tx) error) error {
	if fault == nil {
		return guarded(func() error { return file.Update(f) })
	}
	if err := fault("before"); err != nil {
		return err
	}
	err := guarded(func() error {
		return file.Update(func(tx *bolt.Tx) error {
			if err := f(tx); err != nil {
				return err
			}
			return fault("inside")
		})
	})
	if err != nil {
		return err
	}
	return fault("after")
}
