package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gpuwm/gpuwm/core"
	bolt "go.etcd.io/bbolt"
)

// imageTimeout is how long the opening of an image file waits for another
// process to let go of it.
const imageTimeout = 5 * time.Second

// openAttemptsMax bounds how often acquire starts again because somebody else's
// opening of the same file failed.
const openAttemptsMax = 100

// Images keeps the images of entities, one file each, open only while in use.
// Its methods may be called from any goroutine; they wait for the disk.
type Images struct {
	dir string
	// spare says which entities Sweep leaves alone whatever its caller says.
	spare func(core.EntityID) bool
	// batch is how many bytes of chunks one transaction writes; tests lower it.
	batch int
	// fault is called at each step of a transaction; tests make it fail.
	fault func(step string) error

	mu struct {
		sync.Mutex
		open map[core.EntityID]*imageFile
		// damaged are the files in which something was found that contradicts
		// its digest or format. The next Begin sets the file aside.
		damaged map[core.EntityID]bool
	}
}

// imageFile is an image file in use.
type imageFile struct {
	images *Images
	entity core.EntityID
	path   string
	// aside: the file was set aside, and is opened by its reader alone.
	aside bool
	bolt  *bolt.DB
	err   error
	// ready is closed when bolt or err is set, closed when the file is closed.
	ready, closed chan struct{}
	// turn holds a token while Begin or Retain decides what may be freed.
	turn chan struct{}

	// The rest is guarded by images.mu.
	refs    int
	closing bool
	writing bool
}

func newImageFile(im *Images, entity core.EntityID) *imageFile {
	return &imageFile{
		images: im, entity: entity, path: im.path(entity), refs: 1,
		turn: make(chan struct{}, 1), ready: make(chan struct{}), closed: make(chan struct{}),
	}
}

// OpenImages uses dir, which is created when missing, for image files. One
// process at a time may use it: DB.Open, which calls this, holds the lock.
func OpenImages(dir string) (*Images, error) {
	if err := makeDirectory(dir, syncDirectory); err != nil {
		return nil, fmt.Errorf("create image directory: %w", err)
	}
	im := &Images{dir: dir, batch: batchSize, spare: func(core.EntityID) bool { return false }}
	im.mu.open = make(map[core.EntityID]*imageFile)
	im.mu.damaged = make(map[core.EntityID]bool)
	return im, nil
}

// PutKernel adds k to the entity's image file, which is created when missing;
// it stays with every generation. A repeat writes nothing. A digest that is not
// the code's is core.ErrInvalid.
func (im *Images) PutKernel(entity core.EntityID, k core.Kernel) error {
	if core.DigestOf(k.Code) != k.Digest || len(k.Format) > 255 {
		return fmt.Errorf("store kernel %s of entity %d: digest or format: %w", k.Digest, entity, core.ErrInvalid)
	}
	f, err := im.acquire(entity, true)
	if err != nil {
		return err
	}
	defer f.release()
	if _, err := f.kernel(k.Digest); err == nil {
		return nil
	}
	return f.say("store kernel", f.update(func(tx *bolt.Tx) error { return putKernel(tx, k) }))
}

// Kernel returns a kernel of the entity, core.ErrNotFound when it is not there,
// core.ErrCorrupt when its bytes are not what its digest says.
func (im *Images) Kernel(entity core.EntityID, d core.Digest) (core.Kernel, error) {
	var k core.Kernel
	err := im.lookUp(entity, func(f *imageFile) (err error) {
		k, err = f.kernel(d)
		return f.say("read kernel", err)
	})
	return k, err
}

// Retain drops every generation but gen, and all chunks that gen does not use.
// While a writer of the entity is open its chunks stay, and those that nobody
// uses are left to the next Retain. core.ErrNotFound when there is no gen;
// nothing is dropped then.
func (im *Images) Retain(entity core.EntityID, gen core.Generation) error {
	f, err := im.acquire(entity, false)
	if err != nil {
		return err
	}
	defer f.release()
	f.turn <- struct{}{}
	defer func() { <-f.turn }()
	im.mu.Lock()
	writing := f.writing
	im.mu.Unlock()
	return f.say("retain generation", f.retain(gen, !writing))
}

// Remove deletes the entity's image file and its damaged copies. Removing what
// is not there is no error.
func (im *Images) Remove(entity core.EntityID) error {
	names, err := filepath.Glob(im.path(entity) + ".damaged-*")
	if err != nil {
		return err
	}
	im.mu.Lock()
	delete(im.mu.damaged, entity)
	delete(im.mu.open, entity) // who has it open keeps the nameless file
	im.mu.Unlock()
	for _, name := range append(names, im.path(entity)) {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove image of entity %d: %w", entity, err)
		}
	}
	return syncDirectory(im.dir)
}

// Sweep deletes the image files of entities that keep rejects, and what a crash
// left half made; called at start, before anything is open. The files of
// entities whose records are in quarantine stay, so do files of other names.
func (im *Images) Sweep(keep func(core.EntityID) bool) error {
	entries, err := os.ReadDir(im.dir)
	if err != nil {
		return fmt.Errorf("sweep images: %w", err)
	}
	for _, e := range entries {
		entity, rest, ok := parseImageName(e.Name())
		if !ok || rest != ".tmp" && (keep(entity) || im.spare(entity)) {
			continue
		}
		if err := os.Remove(filepath.Join(im.dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("sweep images: %w", err)
		}
	}
	return syncDirectory(im.dir)
}

func (im *Images) path(entity core.EntityID) string {
	return filepath.Join(im.dir, fmt.Sprintf("%016x.img", uint64(entity)))
}

// parseImageName splits `<id>.img<rest>`.
func parseImageName(name string) (entity core.EntityID, rest string, ok bool) {
	id, rest, found := strings.Cut(name, ".img")
	if !found || len(id) != 16 {
		return 0, "", false
	}
	n, err := strconv.ParseUint(id, 16, 64)
	return core.EntityID(n), rest, err == nil && fmt.Sprintf("%016x", n) == id
}

// acquire opens the entity's file, or joins those who have it open. Without
// create a missing file is core.ErrNotFound. A damaged one is core.ErrCorrupt.
func (im *Images) acquire(entity core.EntityID, create bool) (*imageFile, error) {
	for range openAttemptsMax {
		im.mu.Lock()
		f := im.mu.open[entity]
		switch {
		case f == nil:
			f = newImageFile(im, entity)
			im.mu.open[entity] = f
			im.mu.Unlock()
			f.open(create)
			if f.err != nil {
				f.release()
				return nil, f.say("open image", f.err)
			}
			return f, nil
		case f.closing:
			im.mu.Unlock()
			<-f.closed
		default:
			f.refs++
			im.mu.Unlock()
			<-f.ready
			if f.err == nil {
				return f, nil
			}
			f.release()
		}
	}
	return nil, fmt.Errorf("open image of entity %d: %w", entity, core.ErrBusy)
}

// lookUp calls read with the entity's file, and while that finds nothing with those
// that were set aside, the last one first: a crash may come before the record
// names what is in the new file.
func (im *Images) lookUp(entity core.EntityID, read func(*imageFile) error) error {
	f, err := im.acquire(entity, false)
	if err == nil {
		err = read(f)
		f.release()
	}
	if !errors.Is(err, core.ErrNotFound) {
		return err
	}
	for n := asides(im.path(entity)); n > 0; n-- {
		f := newImageFile(im, entity)
		f.path, f.aside = damagedName(im.path(entity), n), true
		f.open(false)
		found := f.err == nil && read(f) == nil
		f.release()
		if found {
			return nil
		}
	}
	return err
}

// setAside renames the entity's damaged file and begins a new one, with the
// kernels that can still be read from the old.
func (im *Images) setAside(entity core.EntityID) error {
	im.mu.Lock()
	busy := im.mu.open[entity] != nil
	im.mu.Unlock()
	if busy {
		return fmt.Errorf("set damaged image of entity %d aside: in use: %w", entity, core.ErrBusy)
	}
	kernels := im.salvageKernels(entity)
	if _, err := moveAside(im.path(entity)); err != nil {
		return err
	}
	im.mu.Lock()
	delete(im.mu.damaged, entity)
	im.mu.Unlock()
	for _, k := range kernels {
		if err := im.PutKernel(entity, k); err != nil {
			return err
		}
	}
	return nil
}

// salvageKernels returns the kernels of a damaged file whose digests are right.
func (im *Images) salvageKernels(entity core.EntityID) (kernels []core.Kernel) {
	file, err := openFile(im.path(entity), imageTimeout)
	if err != nil {
		return nil
	}
	_ = guarded(func() error {
		return file.View(func(tx *bolt.Tx) error {
			b := tx.Bucket([]byte(imageKernels))
			if b == nil {
				return nil
			}
			return b.ForEach(func(digest, value []byte) error {
				if k, err := decodeKernel(digest, value); err == nil {
					kernels = append(kernels, k)
				}
				return nil
			})
		})
	})
	_ = guarded(file.Close)
	return kernels
}

// open sets f.bolt or f.err.
func (f *imageFile) open(create bool) {
	defer close(f.ready)
	path := f.path
	f.bolt, f.err = openFile(path, imageTimeout)
	if errors.Is(f.err, fs.ErrNotExist) {
		if !create {
			f.err = fmt.Errorf("no image file: %w", core.ErrNotFound)
			return
		}
		if f.err = createFile(path, createImage); f.err != nil {
			return
		}
		f.bolt, f.err = openFile(path, imageTimeout)
	}
	if f.err != nil {
		return
	}
	f.err = guarded(func() error { return f.bolt.View(checkImageSchema) })
	if f.err != nil {
		_ = guarded(f.bolt.Close)
		f.bolt = nil
	}
}

// hold keeps a file that the caller has for one more.
func (f *imageFile) hold() {
	f.images.mu.Lock()
	f.refs++
	f.images.mu.Unlock()
}

// release lets go of the file; the last one closes it.
func (f *imageFile) release() {
	im := f.images
	im.mu.Lock()
	f.refs--
	last := f.refs == 0
	f.closing = f.closing || last
	im.mu.Unlock()
	if !last {
		return
	}
	if f.bolt != nil {
		_ = guarded(f.bolt.Close)
	}
	im.mu.Lock()
	if im.mu.open[f.entity] == f {
		delete(im.mu.open, f.entity)
	}
	im.mu.Unlock()
	close(f.closed)
}

// say completes an error, and notes damage for the next Begin.
func (f *imageFile) say(what string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, core.ErrCorrupt) && !f.aside {
		f.images.mu.Lock()
		f.images.mu.damaged[f.entity] = true
		f.images.mu.Unlock()
	}
	return fmt.Errorf("%s of entity %d: %w", what, f.entity, err)
}

func (f *imageFile) update(do func(*bolt.Tx) error) error {
	return faultyUpdate(f.bolt, f.images.fault, do)
}

func (f *imageFile) view(do func(*bolt.Tx) error) error {
	return guarded(func() error { return f.bolt.View(do) })
}
