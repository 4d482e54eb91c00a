/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * config_lex.h - one line of a configuration, cut into words.
 *
 * The rules are HAProxy's. Words are separated by spaces and tabs; '#' outside quotes begins a
 * comment. In 'strong' quotes every byte stands for itself. In "weak" quotes and outside, a
 * backslash changes the next byte: `\ ` `\#` `\\` `\"` `\'` are that byte, `\n` `\r` `\t` are
 * control bytes, `\xHH` is any byte but NUL, and a backslash before anything else stands for
 * itself. Quotes may begin and end inside a word. Two things differ: a backslash at the end of a
 * line is an error, since it looks like a continuation and HAProxy has none; and so is a bare '$'
 * in weak quotes, where HAProxy puts an environment variable: the parser is pure and knows no
 * environment.
 *
 * Pure: owns nothing, allocates nothing.
 */
#ifndef SHUNT_CONFIG_LEX_H
#define SHUNT_CONFIG_LEX_H

#include <stddef.h>

#define CONFIG_LINE_MAX 2048 /* bytes of a line, its end not counted */
#define CONFIG_WORDS_MAX 64

struct config_word {
	const char *text;    /* ends in NUL; lives in config_line.buf; any byte but NUL */
	unsigned int column; /* the byte where it (or its quote) begins, from 1 */
};

struct config_line {
	struct config_word words[CONFIG_WORDS_MAX];
	unsigned int nr_words; /* 0: an empty line or a comment */
	char buf[CONFIG_LINE_MAX + 1];
	char error[160]; /* what is wrong; only after -EINVAL */
	unsigned int error_column;
};

/*
 * Cuts text[0..len), which holds no newline, into words. Returns 0, or -EINVAL for a line with bad
 * quoting, a control byte (tabs are fine, and so is one carriage return at the end), too many bytes
 * or too many words; then the words before the error are in ret all the same.
 */
int config_lex(struct config_line *ret, const char *text, size_t len);

#endif
