package configs

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// wasmBuffersMax is what a 32-bit linear memory can hold in all; its first
// page belongs to the kernel.
const wasmBuffersMax = 4*gib - 64*kib

// buildDevices takes the devices of the file, or makes one per backend with wasm.
func (b *builder) buildDevices(root *value) {
	if !root.has("devices") {
		for _, info := range b.env.Backends {
			if info.engine("wasm") != nil {
				b.devices = append(b.devices, core.DeviceSpec{Name: info.Name + "0", Backend: info.Name, Engine: "wasm"})
			}
		}
		return
	}
	seen := map[string]int{}
	for _, v := range root.list("devices") {
		n, backend := v.get("name"), v.get("backend")
		if n == nil {
			continue
		}
		if line, double := seen[n.text]; double {
			b.add(n.node, "", "device %q: there is one of that name in line %d", n.text, line)
			continue
		}
		seen[n.text] = n.node.Line
		d := core.DeviceSpec{Name: n.text, Engine: v.word("engine", fallback(deviceShape, "engine")), Options: options(v.get("options"))}
		if backend != nil {
			d.Backend = backend.text
			b.checkEngine(v, d)
			b.checkOptions(v, d)
		}
		b.devices = append(b.devices, d)
	}
}

// checkEngine notes a backend or engine that does not exist.
func (b *builder) checkEngine(v *value, d core.DeviceSpec) {
	if b.env.Backends == nil {
		return
	}
	info := b.backend(d.Backend)
	if info == nil {
		var known []string
		for _, x := range b.env.Backends {
			known = append(known, x.Name)
		}
		b.add(v.at("backend"), b.didYouMean(d.Backend, known), "device %q: there is no backend %q", d.Name, d.Backend)
		return
	}
	if info.Engines == nil {
		return
	}
	engine := info.engine(d.Engine)
	if engine == nil {
		var known []string
		for _, x := range info.Engines {
			known = append(known, x.Name)
		}
		b.add(v.at("engine"), b.didYouMean(d.Engine, known), "device %q: backend %s has no engine %q", d.Name, d.Backend, shorten(d.Engine))
		return
	}
	if _, argument, colon := strings.Cut(d.Engine, ":"); colon && (!engine.Argument || argument == "") {
		takes := "takes no argument"
		if engine.Argument {
			takes = "needs an argument after the colon"
		}
		b.add(v.at("engine"), "", "device %q: engine %q: %s %s", d.Name, shorten(d.Engine), engine.Name, takes)
	}
}

// checkOptions notes an option that the backend does not have.
func (b *builder) checkOptions(v *value, d core.DeviceSpec) {
	given, known := v.get("options"), true
	for _, k := range optionKeys {
		if given == nil || !given.has(k.name) || hasOption(d.Backend, k.name) {
			continue
		}
		known = false
		b.add(given.at(k.name), "it is an option of "+strings.Join(optionsOf[k.name], " and "), "device %q: backend %s has no option %q", d.Name, d.Backend, k.name)
	}
	if b.env.DeviceCheck == nil || d.Options == nil || !known {
		return
	}
	if err := b.env.DeviceCheck(d); err != nil {
		b.add(v.at("options"), "", "device %q: %v", d.Name, err)
	}
}

// options returns the options of a device in canonical form: durations as Go
// writes them, counts in decimal, words and text as they stand; nil when there are none.
func options(v *value) map[string]string {
	if v == nil {
		return nil
	}
	out := map[string]string{}
	for _, k := range optionKeys {
		got := v.get(k.name)
		switch {
		case got == nil:
		case k.shape.kind == kindDuration:
			out[k.name] = time.Duration(got.number).String()
		case k.shape.kind == kindWord, k.shape.kind == kindText:
			out[k.name] = got.text
		default:
			out[k.name] = strconv.FormatUint(got.number, 10)
		}
	}
	return out
}

// chooseDevices resolves which devices an entity may run on.
func (b *builder) chooseDevices(e *draft) {
	asked := e.v.get("device")
	if e.v.has("device") && asked == nil {
		return
	}
	named := b.namedDevices(asked)
	if len(named) == 0 {
		if asked == nil && b.env.Backends != nil {
			b.add(e.v.node, "", "%s: there is no device it could run on", e.title())
		}
		return
	}
	var reasons []string
	for _, d := range named {
		if reason := b.unfit(e, d); reason == "" {
			e.entity.Candidates = append(e.entity.Candidates, d.Name)
		} else {
			reasons = append(reasons, reason)
		}
	}
	if len(e.entity.Candidates) == 0 {
		b.add(e.v.at("device"), "", "%s: no device fits: %s", e.title(), strings.Join(reasons, "; "))
		return
	}
	e.entity.Spec.Device = e.entity.Candidates[0]
}

// namedDevices returns the devices that `device:` stands for, and notes those
// that do not exist.
func (b *builder) namedDevices(asked *value) []core.DeviceSpec {
	if asked == nil {
		return b.devices
	}
	if asked.keys != nil {
		backend := asked.get("backend")
		if backend == nil {
			return nil
		}
		var found []core.DeviceSpec
		for _, d := range b.devices {
			if d.Backend == backend.text {
				found = append(found, d)
			}
		}
		if len(found) == 0 {
			var known []string
			for _, d := range b.devices {
				known = append(known, d.Backend)
			}
			slices.Sort(known)
			b.add(backend.node, b.didYouMean(backend.text, slices.Compact(known)), "there is no device of backend %q", backend.text)
		}
		return found
	}
	names := asked.items
	if names == nil {
		names = []*value{asked}
	}
	var found []core.DeviceSpec
	for _, n := range names {
		if n.bad {
			continue
		}
		i := slices.IndexFunc(b.devices, func(d core.DeviceSpec) bool { return d.Name == n.text })
		switch {
		case i < 0:
			b.add(n.node, b.didYouMean(n.text, b.deviceNames()), "there is no device %q", n.text)
		case slices.ContainsFunc(found, func(d core.DeviceSpec) bool { return d.Name == n.text }):
			b.add(n.node, "", "device %q stands twice in the list", n.text)
		default:
			found = append(found, b.devices[i])
		}
	}
	return found
}

// unfit says why a device cannot run the entity; empty when it can, or when
// that is not known before its plugin runs.
func (b *builder) unfit(e *draft, d core.DeviceSpec) string {
	info := b.backend(d.Backend)
	if info == nil || info.Engines == nil {
		return ""
	}
	engine := info.engine(d.Engine)
	if engine == nil {
		return ""
	}
	if engine.Name == "wasm" && e.bufferBytes > wasmBuffersMax {
		return d.Name + " holds buffers of " + formatSize(wasmBuffersMax) + " in all, these take " + formatSize(e.bufferBytes)
	}
	for _, j := range e.jobs {
		if len(j.job.Kernels) == 0 {
			continue
		}
		takes := slices.ContainsFunc(engine.Formats, func(f string) bool { _, ok := j.job.Kernels[f]; return ok })
		if !takes {
			return d.Name + " takes kernels of format " + strings.Join(engine.Formats, " or ") + ", job " + j.job.Spec.Name + " has none"
		}
	}
	return ""
}

// deviceNames lists the devices that may be named.
func (b *builder) deviceNames() []string {
	names := make([]string, len(b.devices))
	for i, d := range b.devices {
		names[i] = d.Name
	}
	return names
}

// backend returns the backend of that name.
func (b *builder) backend(name string) *BackendInfo {
	i := slices.IndexFunc(b.env.Backends, func(x BackendInfo) bool { return x.Name == name })
	if i < 0 {
		return nil
	}
	return &b.env.Backends[i]
}

// engine returns the engine that `engine:` names; nil when it has none such.
func (i *BackendInfo) engine(device string) *EngineInfo {
	family, _, _ := strings.Cut(device, ":")
	for k := range i.Engines {
		if i.Engines[k].Name == family {
			return &i.Engines[k]
		}
	}
	return nil
}
