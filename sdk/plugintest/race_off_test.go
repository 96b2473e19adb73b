//go:build !race

package plugintest

// raceDetector says that the tests run under the race detector.
const raceDetector = false
