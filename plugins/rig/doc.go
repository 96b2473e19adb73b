// Package rig is the bench on which backends are tested: driver, firmware and
// test engine of one device on one goroutine and one virtual clock (World), entities that
// check what is reported about them (Life), and random work under random faults with a small
// daemon that mends what is lost (Daemon).
//
// It is for tests only and knows no vendor: a vendor's test makes the parts, and says in
// World.Observe what else must hold after every step.
package rig
