package oneport

// connList is a list of connections in the order in which they were added. A connection is in one list at most.
type connList struct {
	oldest, newest *undecided
	n              int
}

func (l *connList) add(u *undecided) {
	u.in, u.older, u.newer = l, l.newest, nil
	if l.newest != nil {
		l.newest.newer = u
	} else {
		l.oldest = u
	}
	l.newest = u
	l.n++
}

// remove does nothing if u is not in the list.
func (l *connList) remove(u *undecided) {
	if u.in != l {
		return
	}
	if u.older != nil {
		u.older.newer = u.newer
	} else {
		l.oldest = u.newer
	}
	if u.newer != nil {
		u.newer.older = u.older
	} else {
		l.newest = u.older
	}
	u.in, u.older, u.newer = nil, nil, nil
	l.n--
}
