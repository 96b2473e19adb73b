package store

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"

	"github.com/gpuwm/gpuwm/core"
)

// sealSize is the CRC-32C behind every value.
const sealSize = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal appends the checksum of value to it.
func seal(value []byte) []byte {
	return binary.BigEndian.AppendUint32(value, crc32.Checksum(value, castagnoli))
}

// unseal returns the value in front of a correct checksum.
func unseal(sealed []byte) ([]byte, error) {
	n := len(sealed) - sealSize
	if n < 0 {
		return nil, fmt.Errorf("%d bytes: %w", len(sealed), core.ErrCorrupt)
	}
	if crc32.Checksum(sealed[:n], castagnoli) != binary.BigEndian.Uint32(sealed[n:]) {
		return nil, fmt.Errorf("checksum differs: %w", core.ErrCorrupt)
	}
	return sealed[:n], nil
}

// encodeRecord returns the sealed JSON of v.
func encodeRecord(v any) ([]byte, error) {
	value, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return seal(value), nil
}

// decodeRecord reads what encodeRecord wrote. Errors wrap core.ErrCorrupt.
func decodeRecord(sealed []byte, into any) error {
	value, err := unseal(sealed)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(value, into); err != nil {
		return fmt.Errorf("%w: %w", err, core.ErrCorrupt)
	}
	return nil
}

// encodeNumber and decodeNumber are for counters.
func encodeNumber(n uint64) []byte { return seal(binary.BigEndian.AppendUint64(nil, n)) }

func decodeNumber(sealed []byte) (uint64, error) {
	value, err := unseal(sealed)
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("number of %d bytes: %w", len(value), core.ErrCorrupt)
	}
	return binary.BigEndian.Uint64(value), nil
}

func entityKey(id core.EntityID) []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

func jobKey(entity core.EntityID, job core.JobID) []byte {
	return binary.BigEndian.AppendUint64(entityKey(entity), uint64(job))
}

// splitEntityKey reads a key of entity_specs or entity_states.
func splitEntityKey(key []byte) (core.EntityID, error) {
	if len(key) != 8 {
		return 0, fmt.Errorf("key of %d bytes: %w", len(key), core.ErrCorrupt)
	}
	return core.EntityID(binary.BigEndian.Uint64(key)), nil
}

// splitJobKey reads a key of job_specs or job_states.
func splitJobKey(key []byte) (core.EntityID, core.JobID, error) {
	if len(key) != 16 {
		return 0, 0, fmt.Errorf("key of %d bytes: %w", len(key), core.ErrCorrupt)
	}
	return core.EntityID(binary.BigEndian.Uint64(key)), core.JobID(binary.BigEndian.Uint64(key[8:])), nil
}

// The decoders of one record each: the value must say what its key says.

func decodeEntitySpec(key, value []byte) (s core.EntitySpec, err error) {
	id, err := splitEntityKey(key)
	if err != nil {
		return s, err
	}
	if err = decodeRecord(value, &s); err == nil && (s.ID != id || id == 0) {
		err = fmt.Errorf("record of entity %d under entity %d: %w", s.ID, id, core.ErrCorrupt)
	}
	return s, err
}

func decodeEntityState(key, value []byte) (s core.EntityState, err error) {
	id, err := splitEntityKey(key)
	if err != nil {
		return s, err
	}
	if err = decodeRecord(value, &s); err == nil && (s.ID != id || id == 0) {
		err = fmt.Errorf("record of entity %d under entity %d: %w", s.ID, id, core.ErrCorrupt)
	}
	return s, err
}

func decodeJobSpec(key, value []byte) (s *core.JobSpec, err error) {
	entity, id, err := splitJobKey(key)
	if err != nil {
		return nil, err
	}
	s = new(core.JobSpec)
	if err = decodeRecord(value, s); err == nil && (s.Entity != entity || s.ID != id || id == 0) {
		err = fmt.Errorf("record of job %d under job %d: %w", s.ID, id, core.ErrCorrupt)
	}
	return s, err
}

func decodeJobState(key, value []byte) (s core.JobState, err error) {
	entity, id, err := splitJobKey(key)
	if err != nil {
		return s, err
	}
	if err = decodeRecord(value, &s); err == nil && (s.Entity != entity || s.ID != id || id == 0) {
		err = fmt.Errorf("record of job %d under job %d: %w", s.ID, id, core.ErrCorrupt)
	}
	return s, err
}

func decodeInstance(key, value []byte) (r core.InstanceRecord, err error) {
	if err = decodeRecord(value, &r); err == nil && r.Instance != string(key) {
		err = fmt.Errorf("record of instance %q under %q: %w", r.Instance, key, core.ErrCorrupt)
	}
	return r, err
}
