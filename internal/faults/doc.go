// Package faults puts "oneport serve" before three servers, and kills, stops and slows
// one of them under load: what do callers notice, and when is it left out and
// taken back? It takes minutes: make faults.
package faults
