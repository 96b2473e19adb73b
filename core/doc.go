// Package core owns the nouns of gpuwm: identifiers, specifications, states,
// causes, the values that cross the backend seam, and the errors everybody
// shares. It imports the standard library only and starts nothing.
//
// Specifications (JobSpec, EntitySpec) are written once and never change
// afterwards; states (JobState, EntityState) are what the schedulers rewrite.
// They are kept apart so that a state change writes few bytes.
package core
