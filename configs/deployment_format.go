package configs

import (
	"math"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// Version of the deployment file format.
const Version = 1

const (
	kib = 1 << 10
	gib = 1 << 30
	// bufferMax bounds one buffer; what a device takes in all is checked besides.
	bufferMax = 1024 * gib
	// imageSideMax bounds width and height of a picture, in pixels.
	imageSideMax = 1 << 16
	// forever is the largest duration.
	forever = math.MaxInt64
)

// Defaults that are applied to absent keys and documented in the schema.
const (
	defaultTimeout    = "60s"
	defaultCheckpoint = "30s"
)

// optionKeys are the options of a device; the configuration file gives
// defaults per engine.
var optionKeys = []key{
	{name: "quantum", doc: "guc, mali: time an entity executes before another one takes its turn (guc: of the same priority); at least 10ms.",
		shape: duration(uint64(10*time.Millisecond), uint64(100*time.Second))},
	{name: "hang-deadline", doc: "Time within which a workgroup must end; after it the device is restarted and the job fails. At most 98s (guc, agx; less what min-run and slice take) or 76s (mali).",
		shape: duration(uint64(10*time.Millisecond), uint64(100*time.Second))},
	{name: "cores", doc: "Processor cores the engine uses; all of them by default.", shape: integer(1, 1024)},
	{name: "instances", doc: "guc: compute engine instances of the device, which execute entities side by side.", shape: integer(1, 9)},
	{name: "min-run", doc: "guc, mali: time an entity executes at least before it is taken off; by default 5ms (guc) or a quantum (mali), at most a quantum on mali.",
		shape: duration(0, uint64(10*time.Second))},
	{name: "runtime-idle", doc: "guc, mali: time without work after which the device sleeps; by default 1s (guc) or 50ms (mali).",
		shape: duration(uint64(10*time.Millisecond), uint64(24*time.Hour))},
	{name: "slice", doc: "agx: time that a suspend may take: jobs are cut into commands that fit into it; 50ms by default.",
		shape: duration(uint64(time.Millisecond), uint64(10*time.Second))},
	{name: "faults", doc: "A fault plan, for trials: what goes wrong in the emulated firmware, by count; the backend's page has its words.", shape: text},
	{name: "firmware", doc: "agx: version of the firmware; 13.5 by default.", shape: word("12.3", "13.5")},
}

// optionsOf says which built-in backends have an option; one that is not listed
// is everybody's. What another backend takes is known when its plugin runs.
var optionsOf = map[string][]string{
	"quantum": {"guc", "mali"}, "instances": {"guc"}, "min-run": {"guc", "mali"}, "runtime-idle": {"guc", "mali"},
	"slice": {"agx"}, "firmware": {"agx"},
}

// builtinBackends are those that optionsOf speaks about.
var builtinBackends = []string{"guc", "agx", "mali"}

// hasOption reports whether a backend takes an option.
func hasOption(backend, option string) bool {
	of, listed := optionsOf[option]
	return !listed || slices.Contains(of, backend) || !slices.Contains(builtinBackends, backend)
}

// deploymentShape is the format of the deployment file.
var deploymentShape = mapping("file",
	key{name: "version", required: true, doc: "Version of this format.", shape: integer(Version, Version)},
	key{name: "devices", doc: "The devices to use. Without it: one per built-in backend, with the wasm engine.", shape: list(deviceShape, 1)},
	key{name: "entities", required: true, doc: "The entities: ordered streams of jobs with memory of their own.", shape: list(entityShape, 1)},
	key{name: "jobs", required: true, doc: "The jobs. The order within one entity is the order of execution.", shape: list(jobShape, 1)},
)

var deviceShape = mapping("device",
	key{name: "name", required: true, doc: "Name of the device.", shape: name},
	key{name: "backend", required: true, doc: "Backend that drives it: guc, agx, mali, or a configured one.", shape: name},
	key{name: "engine", fallback: "wasm", doc: "What executes kernels under its firmware: wasm, opencl:N, test.", shape: text},
	key{name: "options", doc: "Options of the backend.", shape: mapping("options", optionKeys...)},
)

var entityShape = mapping("entity",
	key{name: "name", required: true, doc: "Name of the entity; names of entities and jobs are unique together.", shape: name},
	key{name: "device", doc: "A device, a list of devices to choose from, {backend: X}, or nothing: any that fits.",
		shape: choice(name, list(name, 1), mapping("device choice",
			key{name: "backend", required: true, doc: "Any device of this backend.", shape: name}))},
	key{name: "mode", required: true, doc: "compute bounds every job by a timeout; long-running does not.",
		shape: word(string(core.ModeCompute), string(core.ModeLongRunning))},
	key{name: "priority", fallback: string(core.PriorityNormal), doc: "Order among the entities of a device.",
		shape: word(string(core.PriorityLow), string(core.PriorityNormal), string(core.PriorityHigh))},
	key{name: "checkpoint", doc: "Interval between images; long-running only, 30s if absent.",
		shape: duration(uint64(10*time.Millisecond), uint64(720*time.Hour))},
	key{name: "on-failure", fallback: string(core.OnFailureStop), doc: "Whether later jobs run when one has failed.",
		shape: word(string(core.OnFailureStop), string(core.OnFailureContinue))},
	key{name: "buffers", doc: "Named memory that the jobs of the entity share.", shape: list(bufferShape, 0)},
)

var bufferShape = mapping("buffer",
	key{name: "name", required: true, doc: "Name of the buffer, unique in its entity.", shape: name},
	key{name: "size", doc: "Size with unit (B, KiB, MiB, GiB); with a file: at least its length, the rest is zero.",
		shape: &shape{kind: kindSize, min: 1, max: bufferMax}},
	key{name: "file", doc: "Input file, relative to this one; the buffer has its length unless a size is given.", shape: text},
	key{name: "save", doc: "Result file: a path for the raw bytes, or a map.", shape: choice(text, saveShape)},
)

var saveShape = mapping("save",
	key{name: "path", required: true, doc: "Result file, relative to the output directory.", shape: text},
	key{name: "format", fallback: string(core.SaveRaw), doc: "raw bytes, text up to the first NUL, csv rows, or a picture.",
		shape: word(string(core.SaveRaw), string(core.SaveText), string(core.SaveCSV), string(core.SavePNG), string(core.SavePPM))},
	key{name: "at", doc: "checkpoint: written at every image too, besides the end.", shape: word("checkpoint")},
	key{name: "columns", doc: "csv: the columns of a row, packed little endian; rows of zeros are left out.",
		shape: list(&shape{kind: kindSingle, noun: "column", elem: word(string(core.ArgU32), string(core.ArgI32), string(core.ArgF32),
			string(core.ArgU64), string(core.ArgI64), string(core.ArgF64))}, 1)},
	key{name: "width", doc: "png, ppm: pixels in a row.", shape: integer(1, imageSideMax)},
	key{name: "height", doc: "png, ppm: rows.", shape: integer(1, imageSideMax)},
	key{name: "pixel", doc: "png, ppm: layout of a pixel.", shape: word("rgba8")},
)

var jobShape = mapping("job",
	key{name: "name", required: true, doc: "Name of the job; names of entities and jobs are unique together.", shape: name},
	key{name: "entity", required: true, doc: "Entity whose stream it belongs to.", shape: name},
	key{name: "kernel", required: true, doc: "The program, in one or more formats.", shape: kernelShape},
	key{name: "grid", required: true, doc: "Workgroups in x, y and z.", shape: triple()},
	key{name: "group", fallback: "[1, 1, 1]", doc: "Work-items of a workgroup in x, y and z.", shape: triple()},
	key{name: "args", doc: "Arguments of the kernel, in order.", shape: list(argShape, 0)},
	key{name: "after", doc: "Jobs whose completion it awaits.", shape: list(name, 0)},
	key{name: "timeout", doc: "Bound of the time in execution; compute mode only, 60s if absent.",
		shape: duration(uint64(time.Millisecond), forever)},
)

// kernelFormats are the keys of a kernel that name files.
var kernelFormats = []string{core.FormatWasm, core.FormatOpenCL, "test"}

var kernelShape = mapping("kernel",
	key{name: core.FormatWasm, doc: "WebAssembly module, relative to this file.", shape: text},
	key{name: core.FormatOpenCL, doc: "OpenCL C source, relative to this file.", shape: text},
	key{name: "test", doc: "Script for the test engine, relative to this file.", shape: text},
	key{name: "entry", required: true, doc: "Name of the entry point.", shape: text},
)

var argShape = single("argument",
	key{name: string(core.ArgBuffer), doc: "Address of a buffer of the entity.", shape: name},
	key{name: string(core.ArgU32), doc: "Unsigned 32-bit number, hexadecimal allowed.", shape: number(core.ArgU32)},
	key{name: string(core.ArgI32), doc: "Signed 32-bit number.", shape: number(core.ArgI32)},
	key{name: string(core.ArgF32), doc: "32-bit floating point number.", shape: number(core.ArgF32)},
	key{name: string(core.ArgU64), doc: "Unsigned 64-bit number, hexadecimal allowed.", shape: number(core.ArgU64)},
	key{name: string(core.ArgI64), doc: "Signed 64-bit number.", shape: number(core.ArgI64)},
	key{name: string(core.ArgF64), doc: "64-bit floating point number.", shape: number(core.ArgF64)},
)
