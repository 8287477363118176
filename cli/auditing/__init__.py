"""`orderstream verify`: do log, stream and views agree, event by event and row by row?"""
