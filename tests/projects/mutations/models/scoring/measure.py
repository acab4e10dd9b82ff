LEAST = 1


def words(text):
    return max(LEAST, len(text.split()))


def letters(text):
    return len(text)
