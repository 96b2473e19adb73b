package output

import (
	"bytes"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"math"
	"strconv"

	"github.com/gpuwm/gpuwm/core"
)

// pixelBytes is what one pixel of rgba8 takes: red, green, blue and straight alpha.
const pixelBytes = 4

// picturePixelsMax bounds a picture: it is held in memory while it is encoded.
const picturePixelsMax = 1 << 30

// readBuffer is how many bytes of a buffer are read at once.
const readBuffer = 64 << 10

type encoder func(w io.Writer, spec core.SaveSpec, src io.Reader) error

var encoders = map[core.SaveFormat]encoder{
	core.SaveRaw:  encodeRaw,
	core.SaveText: encodeText,
	core.SaveCSV:  encodeCSV,
	core.SavePNG:  encodePNG,
	core.SavePPM:  encodePPM,
}

func encodeRaw(w io.Writer, _ core.SaveSpec, src io.Reader) error {
	_, err := io.Copy(w, src)
	return err
}

// encodeText copies up to the first NUL.
func encodeText(w io.Writer, _ core.SaveSpec, src io.Reader) error {
	chunk := make([]byte, readBuffer)
	for {
		n, err := src.Read(chunk)
		end := bytes.IndexByte(chunk[:n], 0)
		if end >= 0 {
			n = end
		}
		if _, err := w.Write(chunk[:n]); err != nil {
			return err
		}
		if end >= 0 || errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// encodeCSV writes a header and the rows that are not all zero. Bytes after
// the last whole row are left out.
func encodeCSV(w io.Writer, spec core.SaveSpec, src io.Reader) error {
	size := 0
	header := make([]string, len(spec.Columns))
	for i, c := range spec.Columns {
		header[i] = c.Name
		size += c.Kind.Size()
	}
	if size == 0 {
		return fmt.Errorf("%w: csv without columns", core.ErrInvalid)
	}
	out := csv.NewWriter(w)
	if err := out.Write(header); err != nil {
		return err
	}
	chunk := make([]byte, max(1, readBuffer/size)*size)
	zero := make([]byte, size)
	fields := make([]string, len(spec.Columns))
	for {
		n, err := io.ReadFull(src, chunk)
		for at := 0; at+size <= n; at += size {
			row := chunk[at : at+size]
			if bytes.Equal(row, zero) {
				continue
			}
			for i, c := range spec.Columns {
				text, ok := formatScalar(c.Kind, row)
				if !ok {
					return fmt.Errorf("%w: column %q has kind %q", core.ErrInvalid, c.Name, c.Kind)
				}
				fields[i], row = text, row[c.Kind.Size():]
			}
			if err := out.Write(fields); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// formatScalar writes the little-endian value at the start of b; floating
// point numbers with the fewest digits that read back as the same bits.
func formatScalar(kind core.ArgKind, b []byte) (string, bool) {
	switch kind {
	case core.ArgU32:
		return strconv.FormatUint(uint64(binary.LittleEndian.Uint32(b)), 10), true
	case core.ArgI32:
		return strconv.FormatInt(int64(int32(binary.LittleEndian.Uint32(b))), 10), true
	case core.ArgF32:
		return strconv.FormatFloat(float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), 'g', -1, 32), true
	case core.ArgU64:
		return strconv.FormatUint(binary.LittleEndian.Uint64(b), 10), true
	case core.ArgI64:
		return strconv.FormatInt(int64(binary.LittleEndian.Uint64(b)), 10), true
	case core.ArgF64:
		return strconv.FormatFloat(math.Float64frombits(binary.LittleEndian.Uint64(b)), 'g', -1, 64), true
	}
	return "", false
}

// readPixels reads the whole picture; bytes after it are left out.
func readPixels(spec core.SaveSpec, src io.Reader) ([]byte, error) {
	count := uint64(spec.Width) * uint64(spec.Height)
	if spec.Pixel != "rgba8" || count == 0 || count > picturePixelsMax {
		return nil, fmt.Errorf("%w: picture of %d x %d pixels %q", core.ErrInvalid, spec.Width, spec.Height, spec.Pixel)
	}
	pixels := make([]byte, count*pixelBytes)
	if n, err := io.ReadFull(src, pixels); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("%w: picture takes %d bytes, the buffer has %d", core.ErrInvalid, len(pixels), n)
		}
		return nil, err
	}
	return pixels, nil
}

func encodePNG(w io.Writer, spec core.SaveSpec, src io.Reader) error {
	pixels, err := readPixels(spec, src)
	if err != nil {
		return err
	}
	return png.Encode(w, &image.NRGBA{
		Pix:    pixels,
		Stride: int(spec.Width) * pixelBytes,
		Rect:   image.Rect(0, 0, int(spec.Width), int(spec.Height)),
	})
}

// encodePPM writes the binary form, which has no alpha.
func encodePPM(w io.Writer, spec core.SaveSpec, src io.Reader) error {
	pixels, err := readPixels(spec, src)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "P6\n%d %d\n255\n", spec.Width, spec.Height); err != nil {
		return err
	}
	rgb := pixels[:0]
	for i := 0; i < len(pixels); i += pixelBytes {
		rgb = append(rgb, pixels[i:i+3]...)
	}
	_, err = w.Write(rgb)
	return err
}
