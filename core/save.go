package core

// SaveFormat is how a buffer is written to a result file.
type SaveFormat string

// The formats.
const (
	SaveRaw  SaveFormat = "raw"
	SaveText SaveFormat = "text"
	SaveCSV  SaveFormat = "csv"
	SavePNG  SaveFormat = "png"
	SavePPM  SaveFormat = "ppm"
)

// Column is one column of a csv file; its values stand packed in the buffer,
// little endian, without padding.
type Column struct {
	Name string  `json:"name"`
	Kind ArgKind `json:"kind"`
}

// SaveSpec says to which file a buffer is saved when its entity's jobs are
// done, and at every image too when AtCheckpoint is set.
type SaveSpec struct {
	Buffer string `json:"buffer"`
	// Path is absolute by the time a manager sees it.
	Path         string     `json:"path"`
	Format       SaveFormat `json:"format"`
	AtCheckpoint bool       `json:"at_checkpoint,omitempty"`
	// Columns are for csv; Width, Height (pixels) and Pixel (rgba8) for png and ppm.
	Columns []Column `json:"columns,omitempty"`
	Width   uint32   `json:"width,omitempty"`
	Height  uint32   `json:"height,omitempty"`
	Pixel   string   `json:"pixel,omitempty"`
}
