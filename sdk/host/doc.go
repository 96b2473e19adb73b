// Package host is the daemon's side of the backend seam: it starts plugin
// processes, adopts those that outlived an earlier daemon, ends them verifiably,
// and speaks the protocol of api/v1 with them.
//
// A process is known by its identity (pid, start time, boot, digest of its own
// executable), never by its pid: nothing is signalled before that was verified
// on a pidfd. A process that was started but whose record was not completed is
// found by the instance name in its environment.
//
// A plugin is an untrusted peer. What it sends is validated into errors; a
// stream that breaks the protocol is closed. Its standard output and error are
// read line by line here, because go-plugin's own parser can be crashed by them.
// go-plugin is used for the handshake and the connection; its Kill, Ping, TLS and
// broker are not, because they wait without a deadline or do not survive a
// reattach.
package host
