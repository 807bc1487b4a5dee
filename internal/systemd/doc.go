// Package systemd is what a service says to systemd, and what it gets from it:
// sockets that were opened for it (sd_listen_fds), and the messages of its life
// (sd_notify). Both are a few environment variables and a datagram socket; see
// sd_listen_fds(3) and sd_notify(3). The environment is given, not looked up, and
// outside of systemd everything here does nothing.
//
// It stands in for github.com/coreos/go-systemd/v22, of which two functions would
// be used: that one leaves out a socket it cannot take without saying so, and reads
// and changes the process's environment.
package systemd
