"""What a tagger sees in a picture of the embedded dump, in Danbooru's words."""

from dataset_scripts.mini_booru.draw.pen import CLOTH, EYES, HAIR, Look, Scene

HEADWEAR = (
    "beret",
    "witch_hat",
    "straw_hat",
    "baseball_cap",
    "tiara",
    "maid_headdress",
    "goggles_on_head",
    "headphones",
)
PROPS = {
    "book": "holding_book",
    "sword": "holding_sword",
    "staff": "holding_staff",
    "cup": "holding_cup",
    "rose": "holding_flower",
    "microphone": "holding_microphone",
    "stuffed_cat": "stuffed_animal",
    "balloon": "balloon",
    "candy": "lollipop",
}
PROP_THING = {
    "staff": "staff",
    "sword": "sword",
    "book": "book",
    "cup": "cup",
    "rose": "rose",
    "microphone": "microphone",
    "stuffed_cat": "stuffed_toy",
    "balloon": "holding_balloon",
    "candy": "candy",
}
COLOUR_WORD = {"navy": "blue", "light_brown": "brown"}  # a tagger's word for a colour of CLOTH
MOUTH_TAGS = {
    "smile": ["smile", "closed_mouth"],
    "open": ["open_mouth"],
    "grin": ["open_mouth", "smile", ":d"],
    "closed": ["closed_mouth"],
    "frown": ["frown", "closed_mouth"],
    "o": ["open_mouth", ":o"],
    "cat": [":3", "closed_mouth"],
    "fang": ["open_mouth", "fang", "smile"],
    "wavy": ["wavy_mouth", "closed_mouth"],
    "pout": [":<", "closed_mouth"],
    "tongue": ["tongue_out", "smile", ":p"],
    "kiss": ["^3^", "puckered_lips"],
}
EYE_STATE_TAGS = {
    "open": [],
    "half": ["half-closed_eyes"],
    "closed": ["closed_eyes"],
    "happy": ["closed_eyes", "^_^"],
    "wink": ["one_eye_closed", ";)"],
    "squeeze": ["closed_eyes", ">_<"],
    "line": ["closed_eyes", "=_="],
    "stars": ["+_+", "sparkling_eyes"],
}
BANGS_TAGS = {
    "blunt": ["blunt_bangs"],
    "between_eyes": ["hair_between_eyes"],
    "parted": ["parted_bangs"],
    "swept": ["swept_bangs"],
    "over_one_eye": ["hair_over_one_eye"],
    "crossed": ["crossed_bangs"],
    "asymmetrical": ["asymmetrical_bangs"],
    "forehead": ["forehead", "hair_pulled_back"],
}
STYLE_TAGS = {
    "twin_drills": ["drill_hair", "twin_drills"],
    "twin_braids": ["twin_braids", "braid"],
    "single_braid": ["single_braid", "braid"],
    "low_twintails": ["low_twintails", "twintails"],
    "single_hair_bun": ["single_hair_bun", "hair_bun"],
    "double_bun": ["double_bun", "hair_bun"],
}
PATTERN_TAGS = {
    "streaked": "streaked_hair",
    "gradient": "gradient_hair",
    "inner": "colored_inner_hair",
    "two-tone": "two-tone_hair",
}
OUTFIT_TAGS = {  # {0}, {1}, {2}: colour words of main, second and third colour
    "serafuku": [
        "serafuku",
        "school_uniform",
        "sailor_collar",
        "{1}_sailor_collar",
        "neckerchief",
        "{2}_neckerchief",
        "{0}_shirt",
    ],
    "blazer": [
        "blazer",
        "jacket",
        "school_uniform",
        "{0}_jacket",
        "necktie",
        "{2}_necktie",
        "collared_shirt",
        "white_shirt",
    ],
    "kimono": ["kimono", "japanese_clothes", "{0}_kimono", "obi", "sash", "floral_print", "wide_sleeves"],
    "hoodie": ["hoodie", "hood_down", "{0}_hoodie", "drawstring"],
    "maid": ["maid", "apron", "white_apron", "frills", "{0}_dress", "{2}_bow"],
    "dress": ["{0}_dress", "dress", "bare_shoulders", "frills", "sundress", "collarbone", "{2}_bow"],
    "t-shirt": ["t-shirt", "shirt", "{0}_shirt", "short_sleeves", "print_shirt", "collarbone"],
    "sweater": ["sweater", "turtleneck", "turtleneck_sweater", "{0}_sweater", "ribbed_sweater"],
    "armor": ["armor", "breastplate", "shoulder_armor", "gorget", "pauldrons"],
    "military": ["military", "military_uniform", "{0}_jacket", "epaulettes", "buttons", "sash"],
    "china_dress": ["china_dress", "chinese_clothes", "{0}_dress", "sleeveless", "floral_print", "high_collar"],
    "capelet": ["capelet", "{0}_capelet", "bow", "{2}_bow", "brooch", "jewelry"],
    "track_jacket": ["track_jacket", "jacket", "{0}_jacket", "zipper", "sportswear"],
    "cardigan": ["cardigan", "{0}_cardigan", "collared_shirt", "white_shirt", "bowtie", "{2}_bowtie"],
}
ORNAMENT_TAGS = {  # {0}: colour word
    "hair_ribbon": ["hair_ribbon", "ribbon", "{0}_ribbon"],
    "hairband": ["hairband", "{0}_hairband"],
    "hairclip": ["hairclip", "hair_ornament"],
    "hair_flower": ["hair_flower", "flower", "{0}_flower", "hair_ornament"],
    "hair_bobbles": ["hair_bobbles", "hair_ornament"],
    "hair_bell": ["hair_bell", "bell", "hair_ornament"],
    "glasses": ["glasses", "{0}-framed_eyewear"],
    "round_eyewear": ["round_eyewear", "glasses"],
    "sunglasses": ["sunglasses"],
    "eyepatch": ["eyepatch"],
    "earrings": ["earrings", "jewelry"],
    "choker": ["choker", "{0}_choker"],
    "scarf": ["scarf", "{0}_scarf"],
    "demon_horns": ["horns", "demon_horns"],
    "antlers": ["antlers", "horns"],
    "feathered_wings": ["wings", "feathered_wings", "{0}_wings"],
    "demon_wings": ["wings", "demon_wings"],
    "halo": ["halo"],
    "hair_bow": ["hair_bow", "bow", "{0}_bow"],
    "cat_ears": ["animal_ears", "cat_ears", "cat_girl"],
    "fox_ears": ["animal_ears", "fox_ears", "fox_girl"],
    "rabbit_ears": ["animal_ears", "rabbit_ears", "rabbit_girl"],
    "beret": ["hat", "beret", "{0}_hat"],
    "witch_hat": ["hat", "witch_hat", "{0}_hat"],
    "straw_hat": ["hat", "straw_hat", "hat_ribbon"],
    "baseball_cap": ["hat", "baseball_cap", "{0}_hat"],
    "tiara": ["tiara", "jewelry"],
    "maid_headdress": ["maid_headdress"],
    "goggles_on_head": ["goggles", "goggles_on_head"],
    "headphones": ["headphones"],
}
BACKGROUND_TAGS = {
    "simple": ["simple_background", "{0}_background"],
    "gradient": ["gradient_background"],
    "two-tone": ["two-tone_background"],
    "striped": ["striped_background"],
    "polka_dot": ["polka_dot_background"],
    "checkered": ["checkered_background"],
    "sunburst": ["sunburst_background"],
    "hearts": ["heart_background", "heart"],
    "starry_sky": ["starry_sky", "night", "night_sky", "sky", "star_(sky)"],
    "night_city": ["city_lights", "night", "building", "cityscape", "outdoors"],
    "clouds": ["cloud", "sky", "blue_sky", "day", "outdoors"],
    "sunset": ["sunset", "sky", "orange_sky", "outdoors"],
    "ocean": ["ocean", "horizon", "sky", "outdoors", "water"],
    "cherry_blossoms": ["cherry_blossoms", "outdoors", "tree", "branch"],
    "forest": ["forest", "nature", "tree", "outdoors"],
    "snow": ["snow", "winter", "tree", "outdoors"],
    "window": ["window", "indoors", "curtains"],
    "bookshelf": ["bookshelf", "indoors", "library"],
    "bokeh": ["bokeh", "blurry", "blurry_background"],
    "brush": ["abstract_background"],
}
EFFECT_TAGS = {
    "petals": "petals",
    "snow": "snowing",
    "hearts": "heart",
    "sparkle": "sparkle",
    "leaves": "autumn_leaves",
}

# What taggers notice beside the character: real general tags, from the frequent to the rare. Too small to be drawn.
DETAILS = (
    """
    wristwatch pocket_watch bracelet ring necklace pendant locket cross crucifix anchor key bead_bracelet
    bead_necklace brooch button_badge badge pin armband wristband sweatband watch hair_stick hairpin single_earring
    stud_earrings hoop_earrings crystal_earrings star_earrings heart_earrings tassel_earrings ear_piercing
    nail_polish red_nails blue_nails black_nails pink_nails eyeshadow eyeliner lipstick makeup light_smile
    expressionless surprised happy smirk pout sweatdrop tears crying embarrassed nervous_smile sleepy serious angry
    anger_vein heart spoken_heart star_(symbol) musical_note speech_bubble thought_bubble english_text signature
    watermark artist_name dated character_name copyright_name border white_border rounded_corners letterboxed
    outline white_outline drop_shadow chromatic_aberration film_grain lens_flare light_rays light_particles
    backlighting sunlight shadow shade dappled_sunlight depth_of_field reflection wind floating_hair hair_intakes
    hair_flaps stray_hair antenna_hair wavy_hair straight_hair messy_hair colored_eyelashes long_eyelashes
    thick_eyebrows short_eyebrows white_pupils slit_pupils star-shaped_pupils ringed_eyes jitome sanpaku dot_nose
    skin_fang freckles apple banana strawberry cherry lemon peach watermelon pineapple grapes orange_(fruit) food
    cake cupcake cookie doughnut macaron ice_cream chocolate pocky onigiri bread toast pizza sushi ramen noodles
    dango taiyaki mochi pancake parfait tea coffee teapot teacup mug milk_carton bottle water_bottle soda_can
    drinking_straw spoon fork knife chopsticks plate tray bento basket bag handbag backpack school_bag shoulder_bag
    suitcase umbrella oil-paper_umbrella parasol hand_fan folding_fan paper_fan uchiwa lantern paper_lantern candle
    lamp lamppost clock alarm_clock hourglass globe map compass telescope binoculars camera phone cellphone
    smartphone laptop television handheld_game_console game_controller radio cassette_player guitar electric_guitar
    acoustic_guitar bass_guitar violin cello flute trumpet saxophone harp piano drum drumsticks tambourine
    sheet_music pen pencil paintbrush palette_(object) easel paper letter envelope newspaper notebook quill inkwell
    scissors tape ruler chalkboard chalk desk chair school_desk table couch bed pillow blanket teddy_bear doll
    puppet balloon kite ball basketball soccer_ball baseball baseball_bat volleyball tennis_racket tennis_ball
    swim_ring bicycle motorcycle car train airplane boat ship hot_air_balloon rocket ufo robot gears chain rope
    sailor_hat crown veil cape cloak gloves white_gloves black_gloves fingerless_gloves mittens apron bowtie
    sunflower rose red_rose white_rose tulip lily_(flower) lotus hydrangea morning_glory dandelion daisy
    lavender_(flower) camellia hibiscus clover four-leaf_clover bouquet flower_pot potted_plant cactus bamboo
    maple_leaf leaf ivy vines mushroom acorn pinecone cat black_cat white_cat dog shiba_inu rabbit fox bird crow owl
    penguin chick duck dove parrot butterfly blue_butterfly dragonfly bee ladybug firefly fish goldfish jellyfish
    whale dolphin shark octopus crab turtle frog snake lizard dragon unicorn horse sheep pig cow bear panda hamster
    squirrel hedgehog bat_(animal) spider spider_web moon full_moon crescent_moon sun rainbow lightning rain puddle
    waterfall river lake bridge mountain hill field grass wheat beach sand seashell starfish ruins castle tower
    church shrine torii stone_lantern temple windmill lighthouse ferris_wheel fireworks festival christmas
    christmas_tree santa_hat halloween jack-o'-lantern valentine gift gift_box new_year kadomatsu tanabata tanzaku
    snowman snowball birthday birthday_cake party_hat confetti playing_card chess_piece dice coin treasure_chest
    potion magic magic_circle crystal gem orb glowing fire ice bubble smoke steam feathers fence gate stairs railing
    rooftop street road crosswalk traffic_light road_sign vending_machine train_station bus_stop power_lines
    classroom kitchen bathroom bedroom cafe restaurant shop greenhouse garden ladder broom mop bucket watering_can
    shovel holding_umbrella holding_phone holding_fan holding_fruit v waving pointing salute hand_up hands_up
    own_hands_together hand_on_own_cheek hand_on_own_chest finger_to_mouth index_finger_raised crossed_arms
    arms_behind_back outstretched_arms looking_to_the_side looking_back looking_up looking_down from_side from_above
    from_below profile eating drinking reading writing singing sleeping jumping running walking cooking fishing
    dancing s.m.s. x_x o_o @_@ \\o/ !? ... ! ? ^^^
    """
).split()


def is_without_color(scene: Scene) -> bool:
    """Whether the finished picture has no colours, so that no colour tag applies."""
    return scene.is_greyscale or scene.artist.saturation == 0


def drop_colors(tags: list[str], scene: Scene) -> list[str]:
    """The tags without those that name a colour, if the picture has none."""
    if not is_without_color(scene):
        return tags
    words = tuple(f"{word}{mark}" for word in (*HAIR, *EYES, *CLOTH) for mark in "_-")
    return [tag for tag in tags if not tag.startswith(words)]


def visible_tags(looks: list[Look], scene: Scene) -> list[str]:
    """All general tags that apply to the picture, sorted and without the forgetfulness of taggers."""
    tags = {
        tag.format(COLOUR_WORD.get(scene.backdrop[0], scene.backdrop[0])) for tag in BACKGROUND_TAGS[scene.background]
    }
    tags |= {EFFECT_TAGS[scene.effect]} if scene.effect else set()
    girls, boys = sum(not look.is_boy for look in looks), sum(look.is_boy for look in looks)
    for number, word in ((girls, "girl"), (boys, "boy")):
        tags |= {f"{number}{word}{'s' if number > 1 else ''}"} if number else set()
        tags |= {f"multiple_{word}s"} if number > 1 else set()
    tags |= {"solo"} if len(looks) == 1 else {"no_humans", "scenery"} if not looks else set()
    tags |= {"dutch_angle"} if abs(scene.rotation) > 8 and looks else set()
    tags |= {"head_tilt"} if abs(scene.tilt) > 5 and looks else set()
    if is_without_color(scene):
        tags |= {"monochrome", "greyscale"}
    if looks:
        tags.add("close-up" if scene.scale > 1.85 else "portrait" if scene.scale > 1.25 else "upper_body")
    for look in looks:
        tags |= look_tags(look, scene)
    return drop_colors(sorted(tags), scene)


def visible_length(look: Look) -> set[str]:
    """Tags of the hair's length as drawn: a bun hides it, braids and drills are long, a bob is short."""
    if look.style in ("single_hair_bun", "double_bun"):
        return set()
    if look.style in ("twin_braids", "single_braid", "twin_drills"):
        return {"long_hair"}
    length = "short" if look.style in ("bob_cut", "spiked_hair") else look.length
    return {f"{length}_hair"} | ({"long_hair"} if length == "very_long" else set())


def look_tags(look: Look, scene: Scene) -> set[str]:
    """General tags of one person, as far as the frame shows them."""
    top, bottom = -scene.y / scene.scale, (512 - scene.y) / scene.scale  # units that the frame reaches up and down
    tags = {
        f"{COLOUR_WORD.get(look.hair, look.hair)}_hair",
        *visible_length(look),
        *MOUTH_TAGS[look.mouth],
        *EYE_STATE_TAGS[look.eye_state],
    }
    if look.eye_state == "wink":
        tags = tags - {";)", ":d"} | ({";d"} if look.mouth == "grin" else {";)"} if look.mouth == "smile" else set())
    tags |= {"bangs", *BANGS_TAGS[look.bangs]} if look.bangs != "forehead" else set(BANGS_TAGS["forehead"])
    if look.style and not (look.style in ("single_hair_bun", "double_bun") and "witch_hat" in look.ornaments):
        tags |= set(STYLE_TAGS.get(look.style, [look.style]))
    if look.hair_pattern:
        tags |= {
            PATTERN_TAGS[look.hair_pattern],
            "multicolored_hair",
            f"{COLOUR_WORD.get(look.second_hair, look.second_hair)}_hair",
        }
    tags |= {"ahoge"} if look.ahoge and top < -170 and not set(look.ornaments) & set(HEADWEAR) else set()
    tags |= {"sidelocks"} if look.sidelocks > 100 else set()
    if look.eye_state not in ("closed", "happy", "squeeze", "line") and "sunglasses" not in look.ornaments:
        # A wink closes the right one (in the drawing, before mirroring); long fringes and eyepatches cover the same.
        is_one = look.eye_state == "wink" or look.bangs == "over_one_eye" or "eyepatch" in look.ornaments
        shown = {look.eyes[0]} if is_one else set(look.eyes)
        tags |= (
            {f"{eye}_eyes" for eye in shown} | ({"heterochromia"} if len(shown) > 1 else set()) | {"looking_at_viewer"}
        )
        tags |= {look.eye_shape} if look.eye_shape else set()
    tags |= {"angry": {"v-shaped_eyebrows"}, "sad": {"worried"}, "raised": {"raised_eyebrows"}}.get(look.brows, set())
    tags |= {"blush"} if look.blush > 0.55 else set()
    tags |= {"dark": {"dark_skin"}, "tan": {"tan"}, "pale": {"pale_skin"}}.get(look.skin, set())
    tags |= set(look.marks)
    for kind, color in look.ornaments.items():
        is_high = kind in (
            "halo",
            "witch_hat",
            "rabbit_ears",
            "antlers",
            "demon_horns",
            "fox_ears",
            "hair_bow",
            "tiara",
        )
        is_low = kind in ("choker", "scarf", "feathered_wings", "demon_wings")
        if (is_high and top > -150) or (is_low and bottom < 130):
            continue  # cut off by the frame
        word = COLOUR_WORD.get(color, color)
        tags |= {tag.format(word) for tag in ORNAMENT_TAGS.get(kind, [kind, "hair_ornament"])}
    if bottom > 190:
        words = [COLOUR_WORD.get(color, color) for color in look.cloth]
        shown = OUTFIT_TAGS[look.outfit] if bottom > 260 else OUTFIT_TAGS[look.outfit][:4]
        tags |= {tag.format(*words) for tag in shown}
        tags |= (
            {"long_sleeves"} if look.outfit not in ("dress", "t-shirt", "china_dress", "armor", "capelet") else set()
        )
    if look.prop and bottom > 290:
        tags |= {PROPS[look.prop], "holding", PROP_THING[look.prop]}
    if look.is_boy:
        tags = {tag.replace("_girl", "_boy") for tag in tags} | {"male_focus"}
    return tags
