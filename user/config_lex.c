/* SPDX-License-Identifier: GPL-2.0-or-later */
/* config_lex.c - see config_lex.h. */
#include "config_lex.h"

#include <stdarg.h>

#include "util.h"

struct lexer {
	struct config_line *line;
	const char *text;
	size_t len, pos;
	size_t out; /* bytes written to line->buf: never more than pos, so that it cannot overflow
		     */
	bool in_word;
	char quote; /* '"', '\'', or 0 outside quotes */
	size_t quote_pos;
};

static int PRINTF(3, 4) fail(struct lexer *x, size_t pos, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(x->line->error, sizeof(x->line->error), fmt, ap);
	va_end(ap);
	x->line->error_column = (unsigned int)pos + 1;
	return -EINVAL;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* At a backslash: puts what it means into *ret and pos at the last byte of it. */
static int escape(struct lexer *x, char *ret)
{
	const char *p = x->text + x->pos;
	size_t left = x->len - x->pos;
	int high, low;

	if (left < 2)
		return fail(x, x->pos,
			    "a backslash at the end of the line: lines cannot be "
			    "continued, and a backslash is written \\\\");
	*ret = p[1];
	switch (p[1]) {
	case ' ':
	case '#':
	case '\\':
	case '"':
	case '\'':
		break;
	case 'n':
		*ret = '\n';
		break;
	case 'r':
		*ret = '\r';
		break;
	case 't':
		*ret = '\t';
		break;
	case 'x':
		high = left > 2 ? hex_digit(p[2]) : -1;
		low = left > 3 ? hex_digit(p[3]) : -1;
		if (high < 0 || low < 0 || high + low == 0)
			return fail(x, x->pos, "\\x needs two hexadecimal digits, and not 00");
		*ret = (char)(high * 16 + low);
		x->pos += 2;
		break;
	case '$':
		if (x->quote)
			break;
		/* fall through */
	default:
		*ret = '\\';
		return 0;
	}
	x->pos++;
	return 0;
}

static int begin_word(struct lexer *x)
{
	struct config_line *line = x->line;

	if (line->nr_words == CONFIG_WORDS_MAX)
		return fail(x, x->pos, "more than %d words in one line", CONFIG_WORDS_MAX);
	line->words[line->nr_words] = (struct config_word){
		.text = line->buf + x->out,
		.column = (unsigned int)x->pos + 1,
	};
	x->in_word = true;
	return 0;
}

static void end_word(struct lexer *x)
{
	if (!x->in_word)
		return;
	x->line->buf[x->out++] = '\0';
	x->line->nr_words++;
	x->in_word = false;
}

/* One byte that is not space, comment or control; may move pos further. */
static int word_byte(struct lexer *x, char c)
{
	int r = 0;

	if (!x->in_word) {
		r = begin_word(x);
		if (r < 0)
			return r;
	}
	if (x->quote && c == x->quote) {
		x->quote = '\0';
		return 0;
	}
	if (!x->quote && (c == '"' || c == '\'')) {
		x->quote = c;
		x->quote_pos = x->pos;
		return 0;
	}
	if (c == '\\' && x->quote != '\'')
		r = escape(x, &c);
	else if (c == '$' && x->quote == '"')
		r = fail(x, x->pos,
			 "environment variables are not supported; a dollar sign in "
			 "weak quotes is written \\$");
	if (r < 0)
		return r;
	x->line->buf[x->out++] = c;
	return 0;
}

int config_lex(struct config_line *ret, const char *text, size_t len)
{
	struct lexer x = { .line = ret, .text = text };
	bool comment = false;
	int r;

	ret->nr_words = 0;
	if (len && text[len - 1] == '\r')
		len--;
	x.len = MIN(len, (size_t)CONFIG_LINE_MAX);

	for (; x.pos < x.len; x.pos++) {
		unsigned char c = (unsigned char)text[x.pos];

		if ((c < ' ' && c != '\t') || c == 0x7f)
			return fail(&x, x.pos,
				    "the control byte 0x%02x; text may hold printable "
				    "bytes, spaces and tabs",
				    c);
		if (comment)
			continue;
		if (!x.quote && (c == ' ' || c == '\t')) {
			end_word(&x);
		} else if (!x.quote && c == '#') {
			end_word(&x);
			comment = true;
		} else {
			r = word_byte(&x, (char)c);
			if (r < 0)
				return r;
		}
	}
	if (len > CONFIG_LINE_MAX)
		return fail(&x, CONFIG_LINE_MAX, "the line has %zu bytes; %d are allowed", len,
			    CONFIG_LINE_MAX);
	if (x.quote)
		return fail(&x, x.quote_pos, "the quote %c is not closed in this line", x.quote);
	end_word(&x);
	return 0;
}
