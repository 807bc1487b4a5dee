package config

import "strings"

// didYouMean suggests the nearest of some words, if one is near.
func didYouMean(word string, words []string) string { return question(nearest(word, words)) }

func question(near string) string {
	if near == "" {
		return ""
	}
	return "; did you mean " + shown(near) + "?"
}

// nearest is the one of some words that another was probably meant to be; "" if
// there is none. Two letters may be wrong, fewer in short words.
func nearest(word string, words []string) string {
	best, least := "", 3
	if n := len(word); n < 5 {
		least = n/2 + 1
	}
	for _, candidate := range words {
		if d := estrangement(strings.ToLower(word), strings.ToLower(candidate)); d < least {
			best, least = candidate, d
		}
	}
	return best
}

// estrangement is the distance of two words, or much if it is certainly more
// than a suggestion may have.
func estrangement(word, candidate string) int {
	const much, few = 1000, 3
	switch short := min(len(word), len(candidate)); {
	case short >= few && (strings.HasPrefix(word, candidate) || strings.HasPrefix(candidate, word)):
		return 2 // warning for warn, cert for certificates
	case max(len(word), len(candidate)) > short+8: // a letter has up to 4 bytes
		return much
	}
	return distance(word, candidate)
}

// distance is how many letters must be added, removed, replaced or swapped with
// their neighbour to make one word another (optimal string alignment).
func distance(from, to string) int {
	a, b := []rune(from), []rune(to)
	var before []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range a {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range b {
			replaced := row[j]
			if a[i] != b[j] {
				replaced++
			}
			next[j+1] = min(replaced, row[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
