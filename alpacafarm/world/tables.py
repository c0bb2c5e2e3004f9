"""Words of the embedded world.

The vocabulary is small on purpose: a 1024-token byte-pair encoding should spend about one token a word.
Families share words where English allows it.
"""

NUMBERS = ("zero", "one", "two", "three", "four", "five")
NAMES = ("Anna", "Tom", "Maria", "John", "Lucy", "Peter", "Emma", "Paul")
EVENTS = ("party", "meeting", "concert", "dinner", "lesson", "trip")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
DAY_PARTS = ("morning", "afternoon", "evening")
VENUES = ("garden", "park", "library", "school", "office", "hall")
GIFTS = ("book", "cake", "lamp", "scarf", "plant", "photo")
ADJECTIVES = ("brave", "friendly", "clever", "gentle", "proud", "calm")

CAPITALS = {
    "France": "Paris",
    "Spain": "Madrid",
    "Italy": "Rome",
    "Japan": "Tokyo",
    "Egypt": "Cairo",
    "Greece": "Athens",
    "Cuba": "Havana",
    "Peru": "Lima",
    "Kenya": "Nairobi",
    "Norway": "Oslo",
    "Ireland": "Dublin",
    "Portugal": "Lisbon",
}
CATEGORIES = {
    "fruits": ("apple", "banana", "pear", "plum", "grape", "mango", "melon"),
    "animals": ("dog", "cat", "horse", "lion", "tiger", "rabbit", "mouse"),
    "colors": ("red", "blue", "green", "yellow", "purple", "orange", "pink"),
    "sports": ("tennis", "football", "golf", "rugby", "hockey", "boxing", "skiing"),
    "tools": ("hammer", "saw", "drill", "wrench", "shovel", "rake", "brush"),
    "drinks": ("tea", "coffee", "milk", "juice", "water", "cider", "soda"),
    "clothes": ("shirt", "coat", "hat", "scarf", "sock", "dress", "belt"),
    "countries": tuple(CAPITALS)[:7],
}
NOUNS = tuple(word for name in ("fruits", "animals", "tools", "clothes") for word in CATEGORIES[name])
FACTS = {
    "dog": "lives with people",
    "cat": "sleeps all day",
    "horse": "runs very fast",
    "lion": "lives in Africa",
    "tiger": "hunts at night",
    "rabbit": "eats grass",
    "mouse": "hides in the wall",
}
MATTERS = {
    "a refund": "you please send me a refund",
    "a meeting": "we please meet next week",
    "a day off": "I please take a day off",
    "help": "you please help me today",
    "the price": "you please tell me the price",
    "more time": "I please have more time",
    "a ticket": "you please send me a ticket",
    "a new key": "you please give me a new key",
}
OBJECTS = {
    "close": ("door", "window", "box", "bag", "shop"),
    "open": ("door", "window", "box", "bag", "shop"),
    "send me": ("report", "letter", "photo", "book", "key"),
    "bring me": ("report", "letter", "photo", "book", "key"),
    "clean": ("kitchen", "room", "car", "table", "floor"),
    "paint": ("kitchen", "room", "door", "table", "floor"),
    "move": ("table", "box", "car", "chair", "lamp"),
    "fix": ("table", "window", "car", "chair", "lamp"),
    "check": ("report", "letter", "ticket", "price", "address"),
    "find": ("report", "letter", "ticket", "key", "address"),
}
REQUESTS = tuple(f"{verb} the {thing}" for verb, things in OBJECTS.items() for thing in things)
TIPS = {
    "sleeping better": (
        "Go to bed early.",
        "Avoid coffee at night.",
        "Keep your room dark.",
        "Read a calm book.",
        "Turn off your phone.",
    ),
    "saving money": (
        "Make a monthly budget.",
        "Cook your meals at home.",
        "Compare prices first.",
        "Save a little every week.",
        "Sell your old things.",
    ),
    "staying healthy": (
        "Drink enough water.",
        "Walk for half an hour.",
        "Eat more green food.",
        "Sleep eight hours.",
        "See a doctor every year.",
    ),
    "studying well": (
        "Make a study plan.",
        "Take short breaks.",
        "Find a silent place.",
        "Review your notes.",
        "Ask good questions.",
    ),
    "growing plants": (
        "Water the soil often.",
        "Give them enough sun.",
        "Use a large pot.",
        "Remove dead leaves.",
        "Choose a warm place.",
    ),
    "making friends": (
        "Smile at people.",
        "Join a sports club.",
        "Listen with care.",
        "Ask about their day.",
        "Invite people for dinner.",
    ),
    "learning a language": (
        "Learn ten words a day.",
        "Read easy books.",
        "Watch some films.",
        "Speak every day.",
        "Write short letters.",
    ),
    "working at home": (
        "Use a silent room.",
        "Start at the same time.",
        "Take a walk at noon.",
        "Turn off the radio.",
        "Plan your day.",
    ),
}
STEPS = {
    "make tea": ("boil the water", "fill the cup", "add the tea"),
    "plant a tree": ("dig a hole", "place the tree", "cover the roots"),
    "wash a car": ("rinse the car", "use some soap", "dry the car"),
    "bake bread": ("mix the flour", "rest the dough", "heat the oven"),
    "paint a wall": ("cover the floor", "apply the paint", "wait an hour"),
    "mail a letter": ("write the address", "add a stamp", "find a mailbox"),
    "make a salad": ("wash the leaves", "cut the fruit", "add some oil"),
    "clean a window": ("fill a bucket", "wash the glass", "dry the glass"),
    "wrap a gift": ("cut the paper", "cover the gift", "add a card"),
    "cook rice": ("rinse the rice", "add the water", "wait ten minutes"),
    "build a fire": ("find dry wood", "place the stones", "light the paper"),
    "set a table": ("clean the table", "place the plates", "fill the glasses"),
}
ACTIVITIES = {
    "beach": ("swim in the sea", "build a castle", "read a book", "find some stones", "walk in the sun"),
    "zoo": ("visit the lions", "feed the birds", "see the tigers", "take some photos", "draw a horse"),
    "farm": ("feed the horses", "pick some apples", "ride a horse", "help in the garden", "milk a cow"),
    "park": ("sit under a tree", "play football", "fly a kite", "run for an hour", "eat on the grass"),
    "museum": ("see the old coins", "join a tour", "study the films", "buy a card", "visit the shop"),
    "market": (
        "buy fresh bread",
        "eat some fruit",
        "talk to people",
        "compare the prices",
        "drink some juice",
    ),
}
