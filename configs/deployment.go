package configs

import (
	"fmt"
	"path/filepath"

	"github.com/gpuwm/gpuwm/core"
)

// Deployment is a deployment file that is right: every name resolves, every
// input was read, every output place can be written.
type Deployment struct {
	// Path is the absolute path of the file.
	Path    string
	Version int
	// Devices are those of the file, or one per built-in backend.
	Devices []core.DeviceSpec
	// Entities are in file order.
	Entities []Entity
}

// Entity is an entity of a deployment with its jobs.
type Entity struct {
	// Spec is complete but for its ID. Device is the first of Candidates.
	Spec core.EntitySpec
	// Candidates are the devices that fit, in the order of preference; never empty.
	Candidates []string
	// Buffers say how Spec.Buffers are filled, index by index.
	Buffers []BufferInit
	// Jobs are in the order of submission.
	Jobs []Job
	Position
}

// BufferInit is how a buffer starts: all zero, or from a file.
type BufferInit struct {
	// Path is the absolute path of the file, empty for zeroes.
	Path string
	// Length is the file's length in bytes, at most the size of the buffer; the rest is zero.
	Length uint64
	// Digest is that of the file as it was when the deployment was loaded.
	Digest core.Digest
}

// Job is a job of a deployment.
type Job struct {
	// Spec is complete but for ID, Entity, Seq and After.
	Spec core.JobSpec
	// After names the jobs it awaits; they may be earlier ones of the same entity.
	After []string
	// Kernels are the programs by format; their digests stand in Spec.Kernels.
	Kernels map[string]core.Kernel
	Position
}

// EngineInfo is an engine that a backend can put under its firmware.
type EngineInfo struct {
	// Name is what stands before a colon in `engine:`, for instance "opencl" for opencl:0.
	Name string
	// Formats are the kernel formats it takes.
	Formats []string
	// Argument says that a colon and an argument may follow the name.
	Argument bool
}

// BackendInfo is a backend that a deployment may name.
type BackendInfo struct {
	Name string
	// Engines are those it offers; nil when they are not known before its
	// plugin runs, then every engine and kernel format is accepted.
	Engines []EngineInfo
}

// Env is what a deployment file is checked against.
type Env struct {
	// OutputDir is where relative save paths lead; empty means the current directory.
	OutputDir string
	// Backends are those that can be used; nil skips the check for devices that
	// fit. A file without devices gets one per backend that offers wasm.
	Backends []BackendInfo
	// DeviceCheck, when not nil, says what is wrong with a device's options, as far as
	// that is known before its plugin runs.
	DeviceCheck func(core.DeviceSpec) error
	// KernelCheck, when not nil, inspects a kernel for a job; it returns nil for
	// formats it does not know. bufferBytes is the size of the buffers
	// that the arguments name, each rounded up to 64 KiB.
	KernelCheck func(format string, code []byte, entry string, args []core.Arg, bufferBytes uint64) error
}

// Load reads and checks a deployment file and all that it names. A file that
// is not right gives a *FileError with every problem; other errors say that
// the file itself could not be read. Load creates nothing on disk.
func Load(path string, env Env) (*Deployment, error) {
	content, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read deployment file: %w", err)
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("read deployment file: %w", err)
	}
	return parse(path, absolute, content, env)
}

// parse is Load without reading the file; shown is the path for messages.
func parse(shown, absolute string, content []byte, env Env) (*Deployment, error) {
	p := &problems{file: shown}
	root := decodeFile(content, deploymentShape, p)
	if root == nil {
		return nil, p.err()
	}
	b := &builder{
		problems: p, env: env, files: newFiles(filepath.Dir(absolute), env.OutputDir, p),
		names: map[string]string{}, entities: map[string]*draft{}, jobs: map[string]*jobDraft{},
		checked: map[string]error{},
	}
	deployment := &Deployment{Path: absolute, Version: Version}
	b.buildDevices(root)
	for _, v := range root.list("entities") {
		b.addEntity(v)
	}
	jobs := root.list("jobs")
	b.jobless = len(jobs) == 0 || len(jobs) != len(root.listAll("jobs"))
	for _, v := range jobs {
		b.addJob(v)
	}
	b.resolveAfter()
	for _, j := range b.jobOrder {
		b.checkKernels(j)
	}
	for _, e := range b.order {
		b.finish(e)
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	deployment.Devices = b.devices
	for _, e := range b.order {
		deployment.Entities = append(deployment.Entities, e.entity)
	}
	together := run(deployment.Entities)
	for i := range deployment.Entities {
		deployment.Entities[i].Spec.Run = together
	}
	return deployment, nil
}

// builder is the second stage: it turns good values into a deployment.
type builder struct {
	*problems
	env   Env
	files *files

	devices []core.DeviceSpec
	// names maps what an entity or job is called to the noun that has the name.
	names    map[string]string
	entities map[string]*draft
	order    []*draft
	jobs     map[string]*jobDraft
	jobOrder []*jobDraft
	// jobless says that some job could not be read or belongs nowhere, so that
	// an entity without jobs need not be one.
	jobless bool
	// checked remembers verdicts on kernels, so that a thousand jobs with one kernel cost one inspection.
	checked map[string]error
}

// draft is an entity being built.
type draft struct {
	v      *value
	entity Entity
	// bufferBytes is the sum of the buffers' sizes.
	bufferBytes uint64
	jobs        []*jobDraft
	// partial says that something of it is bad, so that what is said of the
	// whole would mislead.
	partial bool
	// unnamed says that a buffer has no good name, so that none can be missed.
	unnamed bool
}

// jobDraft is a job being built.
type jobDraft struct {
	v     *value
	job   Job
	owner *draft
	// after are the resolved jobs, index by index with afterAt.
	after   []*jobDraft
	afterAt []*value
	seq     int
	// order is the place in the file.
	order int
}

// claim notes the name of an entity or job; false says that it has none, or
// that it was taken.
func (b *builder) claim(noun string, v *value) (string, bool) {
	n := v.get("name")
	if n == nil {
		return "", false
	}
	if taken, ok := b.names[n.text]; ok {
		b.add(n.node, "names of entities and jobs are unique together", "%s %q: the name is already that of %s", noun, n.text, taken)
		return n.text, false
	}
	b.names[n.text] = fmt.Sprintf("the %s in line %d", noun, n.node.Line)
	return n.text, true
}

// addEntity builds an entity but for its jobs, devices and identity.
func (b *builder) addEntity(v *value) {
	e := &draft{v: v, entity: Entity{Position: Position{v.node.Line, v.node.Column}}}
	spec := &e.entity.Spec
	spec.Mode = core.Mode(v.word("mode", ""))
	spec.OnFailure = core.OnFailure(v.word("on-failure", fallback(entityShape, "on-failure")))
	spec.Properties.Priority = core.Priority(v.word("priority", fallback(entityShape, "priority")))
	if spec.Mode == core.ModeLongRunning {
		spec.Properties.Checkpoint = v.duration("checkpoint", defaultCheckpoint)
	} else if spec.Mode == core.ModeCompute && v.has("checkpoint") {
		b.add(v.at("checkpoint"), "compute entities get images by themselves; remove it or use mode: long-running",
			"checkpoint is for mode long-running only")
	}
	b.addBuffers(e)
	n, ok := b.claim("entity", v)
	spec.Name = n
	if ok {
		b.entities[n] = e
	} else {
		e.partial = true
	}
	b.order = append(b.order, e)
}

// addBuffers builds the buffers and saves of an entity.
func (b *builder) addBuffers(e *draft) {
	seen := map[string]int{}
	good := e.v.list("buffers")
	e.unnamed = len(good) != len(e.v.listAll("buffers")) || e.v.has("buffers") && e.v.get("buffers") == nil
	for _, v := range good {
		n := v.get("name")
		if n == nil {
			e.unnamed = true
			continue
		}
		if line, double := seen[n.text]; double {
			b.add(n.node, "", "buffer %q: the entity has one of that name in line %d", n.text, line)
			continue
		}
		seen[n.text] = n.node.Line
		size, init, ok := b.bufferSize(v)
		e.partial = e.partial || !ok
		// A buffer of unknown size is still known by name.
		e.entity.Spec.Buffers = append(e.entity.Spec.Buffers, core.BufferSpec{Name: n.text, Size: size})
		e.entity.Buffers = append(e.entity.Buffers, init)
		e.bufferBytes += size
		if save := v.get("save"); save != nil {
			if s, ok := b.save(n.text, size, save); ok {
				e.entity.Spec.Saves = append(e.entity.Spec.Saves, s)
			}
		}
	}
}

// bufferSize returns the size of a buffer and what it starts with.
func (b *builder) bufferSize(v *value) (uint64, BufferInit, bool) {
	size, file := v.get("size"), v.get("file")
	if v.has("size") && size == nil || v.has("file") && file == nil {
		return 0, BufferInit{}, false
	}
	if file == nil {
		if size == nil {
			b.add(v.node, "give it a size such as 64KiB, or a file", "buffer %q has neither size nor file", v.get("name").text)
			return 0, BufferInit{}, false
		}
		return size.number, BufferInit{}, true
	}
	init, ok := b.files.input(file)
	if !ok {
		return 0, BufferInit{}, false
	}
	if size == nil {
		return init.Length, init, true
	}
	if init.Length > size.number {
		b.add(size.node, "", "buffer of %s is smaller than its file of %d bytes", formatSize(size.number), init.Length)
		return 0, BufferInit{}, false
	}
	return size.number, init, true
}

// finish completes an entity: devices, kernels, flush, identity.
func (b *builder) finish(e *draft) {
	spec := &e.entity.Spec
	if len(e.jobs) == 0 && !e.partial && !b.jobless {
		b.add(e.v.node, "", "%s has no jobs", e.title())
	}
	b.chooseDevices(e)
	for _, j := range e.jobs {
		e.entity.Jobs = append(e.entity.Jobs, j.job)
	}
	if n := len(e.entity.Jobs); n > 0 && len(spec.Saves) > 0 {
		e.entity.Jobs[n-1].Spec.Flush = true
	}
	spec.Identity = identity(&e.entity)
}

// fallback returns the default of a key as the table has it.
func fallback(s *shape, name string) string {
	k, _ := s.key(name)
	return k.fallback
}

// title is what messages call the job.
func (j *jobDraft) title() string { return titled("job", j.job.Spec.Name, j.job.Line) }

// title is what messages call the entity.
func (e *draft) title() string { return titled("entity", e.entity.Spec.Name, e.entity.Line) }

func titled(noun, name string, line int) string {
	if name == "" {
		return fmt.Sprintf("%s in line %d", noun, line)
	}
	return fmt.Sprintf("%s %q", noun, name)
}

// word returns the text of a key, or the default.
func (v *value) word(key, absent string) string {
	if got := v.get(key); got != nil {
		return got.text
	}
	return absent
}
