package fw

import (
	"encoding/binary"
	"hash/crc32"
)

// Seal gives an image that was tampered with a header and a checksum that fit.
func Seal(b []byte, id Identity) {
	id, _ = id.complete()
	le := binary.LittleEndian
	length := imageHeader + id.Streams*streamRecord
	le.PutUint32(b, imageMagic)
	le.PutUint16(b[4:], imageFormat)
	b[6], b[7] = id.SuspendType, uint8(id.Streams)
	le.PutUint64(b[imageBuildOffset:], id.Build)
	le.PutUint32(b[imageLengthOffset:], uint32(length))
	le.PutUint32(b[imageChecksum:], 0)
	le.PutUint32(b[imageChecksum:], crc32.ChecksumIEEE(b[:length]))
}
