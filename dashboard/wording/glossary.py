"""What each technical word of the pages means, in a sentence: shown where the word stands."""

from markupsafe import Markup

WORDS = {
    "backlog": "What the source has, and readers do not have yet, as far as the last run saw.",
    "candidate": "A generation of another model, kept current beside what readers have until a person decides.",
    "chunk": "A piece of a document: what is embedded, found and counted.",
    "cluster": "Chunks whose vectors lie together, with a name made of their most typical words.",
    "cost": "Cores and GPUs that runs held, used or not, times the prices of the spec.",
    "coverage": "Chunks that have a vector, of all chunks.",
    "dead letter": "A document or chunk that could not be read or embedded, with its reason. It is tried again at the next run.",
    "document": "A row of a table, a line, or a file of the source.",
    "drift": "Whether the meaning of the content has moved: how chunks spread over clusters, beside the version before.",
    "embedded": "Distinct contents that went through the model: each once, however many chunks have it.",
    "epoch": "Counts the publications of a collection.",
    "gate": "A check that a version must pass before readers get it.",
    "generation": "All vectors that one model made of one way of cutting: a table of its own.",
    "landmark": "A content that keeps its place on the map from version to version.",
    "main": "The generation that the spec declares: what runs publish.",
    "map": "Vectors laid out in the plane: what is alike lies together.",
    "model": "What makes vectors of texts.",
    "neighbour": "A chunk whose vector is among the most alike.",
    "newest source": "When a file of the source was last changed, as of the last look.",
    "outlier": "A chunk that is like hardly anything else: odder than 99.8 % of a sample.",
    "overlap": "Of the k results of one side, the share that the other side has, too.",
    "pending": "Chunks without a vector: new, changed, or not yet embedded by this model.",
    "published": "What readers get: one version of one generation.",
    "reused": "Chunks that took a stored vector, or shared a forward pass with others of the same content.",
    "run": "One attempt to bring a collection up to date. It can be stopped and gone on with.",
    "score": "Cosine similarity of question and chunk: 1 is the same direction.",
    "served": "What readers have while another generation is about to take its place.",
    "space": "What decides the vector of an input: the bytes of the weights and all settings. Vectors of two spaces cannot be compared.",
    "stage": "A part of a run: reading, embedding, indexing, judging.",
    "token": "A piece of a word, as the model reads it.",
    "typical": "Cosine similarity to the landmark that is most like it: 1 is a landmark's own content.",
    "version": "One state of a generation. Readers have it whole, and it never changes.",
}


def term(word: str, shown: str = "") -> Markup:
    """`shown`, or the word itself, with its meaning as a tooltip. Raises KeyError for a word that has none."""
    return Markup('<abbr title="{}">{}</abbr>').format(WORDS[word], shown or word)
